//! `nemoflash doctor`: checks that this machine computes correct results.

pub mod models;
mod operators;
mod report;

use crate::args::Common;
use crate::report::Exit;
use crate::{open, quiet, terminal};
use anyhow::{Result, bail};
use nemoflash::{Exec, Gpu, ops};
use report::Report;
pub use report::{Item, Verdict};
use std::time::{Duration, Instant};

/// Time for checking the operators. The smallest example of each runs even after that.
const OPERATORS: Duration = Duration::from_secs(4);

/// Runs the command.
///
/// # Errors
/// If there is no such device as the options name. After the report has been printed: if a check failed.
pub async fn run(common: &Common) -> Result<Exit> {
    let start = Instant::now();
    let (mut exec, _) = open::device(common).await?;
    let mut report = Report::new();
    let on_gpu = matches!(exec, Exec::Gpu(_));
    let again = async || match on_gpu {
        true => {
            let gpu = quiet::during(common.verbose, Gpu::new(&common.gpu())).await?;
            Ok(Exec::Gpu(Box::new(gpu)))
        }
        false => Ok(Exec::cpu()),
    };
    let mut lost = None;
    match &exec {
        Exec::Gpu(gpu) => {
            report.gpu = Some((gpu.info().clone(), gpu.caps().clone()));
            if terminal::watched() && !common.json {
                terminal::note("checking every operator ...");
            }
            let mut cases = ops::seeded();
            cases.retain(|(_, case)| case.runs_on(gpu.caps()));
            (report.operators, lost) = operators::check(&mut exec, cases, OPERATORS, &again).await;
        }
        Exec::Cpu(_) | Exec::Dry(_) => {
            report.checks.push(Item::not_run("operators", "no GPU is used, so there are no kernels to check"))
        }
    }
    match lost {
        Some(why) => {
            let detail = format!("the GPU was lost, and the checks that were left could not run: {why}");
            report.checks.push(Item::fail("device", detail));
        }
        None => {
            report.checks.extend(models::fables(exec, common.kv(), common.scan()).await);
            if common.model.is_some() {
                report.checks.extend(models::given(common, &again).await);
            }
        }
    }
    report.seconds = start.elapsed().as_secs_f64();
    terminal::print(&if common.json { format!("{:#}\n", report.json()) } else { report.page() })?;
    match report.count(Verdict::Fail) {
        0 => Ok(Exit::Done),
        failed => bail!(
            "{failed} of the checks failed. Update the GPU's driver, or try another --adapter or --device cpu. For a bug \
             report, add the output of `nemoflash doctor --json`"
        ),
    }
}
