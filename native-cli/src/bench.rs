//! `nemoflash bench`: measures a model on one or several devices. Each row of the result says everything that its numbers
//! depend on.

mod browser;
mod children;
mod measure;
mod options;
mod output;
mod paper;
mod row;

pub use measure::gate;
pub use options::Bench;
pub use row::{software, today, weights_name};

use crate::args::Common;
use crate::interrupt::{self, Answering, Idle};
use crate::report::Exit;
use crate::terminal;
use crate::{compare, html, outfile};
use anyhow::{Result, bail};
use nemoflash_bench::report::Gate;
use options::{Output as Format, Table};
use output::Output;

/// Runs the command.
///
/// # Errors
/// If an option, the model or the device cannot be used. After all rows have been written: if a row has no result, or if the
/// golden check failed on a device.
pub async fn run(common: &Common, bench: &Bench) -> Result<Exit> {
    let mut used = outfile::inputs(common);
    if let Some(file) = &bench.file {
        outfile::check(file, &used)?;
        used.push(file.clone());
    }
    if let Some(html) = &bench.html {
        html::named(html)?;
        outfile::check(html, &used)?;
    }
    if let Some(path) = &bench.browser {
        browser::check(common, bench, path.as_deref())?;
    }
    let tests = bench.lists().tests();
    let format = if common.json { Format::Json } else { bench.output };
    let mut output = Output::new(format, bench.file.as_deref())?;
    interrupt::install(Idle::Exit)?;
    let answering = Answering::begin();
    let stopped = || answering.stopped();
    let mut write = |row| output.row(row);
    if bench.table == Some(Table::Paper) {
        paper::rows(common, bench, &stopped, &mut write).await?;
    } else if bench.all_backends || bench.sweep {
        children::measure(common, bench, &tests, &stopped, &mut write)?;
    } else {
        measure::device(common, bench, &tests, &stopped, &mut write).await?;
    }
    let page = match &bench.browser {
        Some(path) => browser::measure(common, bench, path.as_deref(), &stopped, &mut write),
        None => Ok(vec![]),
    };
    let text = bench.file.is_some() || format == Format::Md;
    let rows = output.end()?;
    let (mut missing, failed) = match page {
        Ok(missing) => (missing, None),
        Err(error) => (vec![format!("no rows of a browser: {error:#}")], Some(error)),
    };
    missing.extend(stopped().then(|| "stopped by Ctrl-C: what was not measured until then is missing".to_owned()));
    let file = bench.file.as_deref().map_or("this run".into(), compare::name);
    if text || bench.html.is_some() {
        let said = compare::measured(rows.clone(), &file, missing, bench.html.as_deref())?;
        let said = if bench.table == Some(Table::Paper) { paper::table(&rows) } else { said };
        terminal::print(if text { &said } else { "" })?;
    }
    bench.html.iter().for_each(|path| terminal::note(&format!("[wrote {}]", path.display())));
    if let Some(error) = failed {
        return Err(error);
    }
    if stopped() {
        return Ok(Exit::Interrupted);
    }
    let errors = rows.iter().filter(|row| row.error.is_some()).count();
    let wrong = rows.iter().filter(|row| row.gate == Gate::Failed).count();
    match (errors, wrong) {
        (0, 0) => Ok(Exit::Done),
        (0, _) => bail!("the golden tokens of {wrong} of {} rows are wrong. Run `nemoflash doctor` there", rows.len()),
        _ => bail!("{errors} of {} rows have no result; each says why", rows.len()),
    }
}
