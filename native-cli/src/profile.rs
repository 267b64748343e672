//! `nemoflash profile`: the two latency studies of the paper, for this device.

mod depth_width;
mod lab;
mod law;
mod operators;
mod options;
mod output;
mod points;
mod sections;
mod study;

pub use options::Profile;

use crate::args::Common;
use crate::interrupt::{self, Answering, Idle};
use crate::page;
use crate::report::{Exit, Usage};
use anyhow::Result;
use lab::Lab;
use options::Study;

/// Runs the command.
///
/// # Errors
/// What is wrong with an option or the device; after everything has been written, if nothing was measured or the table predicts
/// a held-out stack worse than it promises.
pub async fn run(common: &Common, profile: &Profile) -> Result<Exit> {
    if common.model.is_some() || common.arch.is_some() {
        let why = "profile makes its own stacks with random weights. Leave --model and --arch out";
        return Err(Usage(why.into()).into());
    }
    let output = profile.study.output();
    output.html.as_deref().map_or(Ok(()), page::named)?;
    output.file.as_deref().map_or(Ok(()), output::touch)?;
    let points = profile.study.points()?;
    interrupt::install(Idle::Exit)?;
    let answering = Answering::begin();
    let stopped = || answering.stopped();
    let lab = Lab::open(common, output.skip_gate, &stopped).await?;
    match &profile.study {
        Study::Operators(args) => operators::run(common, args, lab).await,
        Study::DepthWidth(args) => depth_width::run(common, args, points, lab).await,
    }
}
