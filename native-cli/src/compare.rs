//! `nemoflash compare`: compares benchmark rows from any machines, as a table on the terminal, as JSON and as an HTML report.

mod agree;
mod columns;
mod findings;
mod html;
mod label;
mod ratio;
pub(crate) mod read;
mod sections;
mod table;
mod text;

use crate::args::Common;
use crate::report::Exit;
use crate::{outfile, terminal};
use anyhow::{Result, bail};
use nemoflash_bench::report::Row;
use std::path::{Path, PathBuf};

/// Most columns of a comparison. Nobody can read a wider table.
const MAX_COLUMNS: usize = 64;

/// The options of the command.
#[derive(Debug, clap::Args)]
pub struct Compare {
    /// Files that `nemoflash bench` wrote (json or jsonl), at most 64 MiB each. All columns are compared with the
    /// first device of the first file
    #[arg(value_name = "FILE", required = true, help_heading = "Arguments")]
    pub files: Vec<PathBuf>,
    /// Also write an HTML report: one file without scripts, for any browser
    #[arg(long, value_name = "REPORT.html")]
    pub html: Option<PathBuf>,
}

/// Runs the command.
///
/// # Errors
/// If a file cannot be read or has another schema, or the HTML report cannot be written.
pub fn run(common: &Common, args: &Compare) -> Result<Exit> {
    if let Some(html) = &args.html {
        crate::html::named(html)?;
        outfile::check(html, &args.files)?;
    }
    let read::Rows { rows, notes } = read::all(&args.files)?;
    let files: Vec<String> = args.files.iter().map(|path| name(path)).collect();
    let comparison = table::Comparison::new(rows, &files, notes);
    if comparison.columns.len() > MAX_COLUMNS {
        bail!("more than {MAX_COLUMNS} devices and runs. Compare fewer files at a time");
    }
    args.html.as_ref().map_or(Ok(()), |path| write(&comparison, path))?;
    match common.json {
        true => terminal::print(&format!("{:#}\n", serde_json::to_value(&comparison)?))?,
        false => terminal::print(&text::table(&comparison))?,
    }
    for note in &comparison.notes {
        terminal::note(&format!("note: {note}"));
    }
    if let Some(path) = &args.html {
        terminal::note(&format!("[wrote {}]", path.display()));
    }
    Ok(Exit::Done)
}

/// For `bench`: says whether all devices gave the same tokens in the rows that were just measured, and writes the HTML report
/// to `html`, if it is given. In the report, `file` is the name of the rows' file, and `notes` say what is missing.
///
/// # Errors
/// If the HTML report cannot be written.
pub fn measured(rows: Vec<Row>, file: &str, mut notes: Vec<String>, html: Option<&Path>) -> Result<String> {
    let mut fit = vec![];
    for row in rows {
        // The bounds are those of rows from files. A row beyond them is left out, and the others are kept.
        match read::fit(&row, &row.test.name) {
            Ok(()) => fit.push((0, row)),
            Err(why) => notes.push(format!("left out: {why:#}")),
        }
    }
    let comparison = table::Comparison::new(fit, &[file.to_owned()], notes);
    html.map_or(Ok(()), |path| write(&comparison, path))?;
    Ok(text::agreement(&comparison))
}

fn write(comparison: &table::Comparison, path: &Path) -> Result<()> {
    outfile::write(path, html::page(comparison)?.as_bytes())
}

/// A file's name without its folder. A report that is passed on must not show folders of this machine.
pub fn name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}
