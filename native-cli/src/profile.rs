//! `nemoflash profile`: repeats the paper's two studies of latency on this device.

mod depth_width;
mod lab;
mod law;
mod operators;
mod options;
mod output;
pub(crate) mod points;
mod sections;
mod study;

pub use options::Profile;

use crate::args::Common;
use crate::html;
use crate::interrupt::{self, Answering, Idle};
use crate::outfile::{self, Growing};
use crate::report::Exit;
use anyhow::Result;
use lab::Lab;
use options::Study;
use std::path::PathBuf;

/// Runs the command.
///
/// # Errors
/// If an option or the device cannot be used. After everything has been written: if nothing was measured, or if the error of a
/// prediction for a held-out stack is above the limit.
pub async fn run(common: &Common, profile: &Profile) -> Result<Exit> {
    let output = profile.study.output();
    let mut used: Vec<PathBuf> = profile.study.points_file().into_iter().collect();
    if let Some(file) = &output.file {
        outfile::check(file, &used)?;
        used.push(file.clone());
    }
    if let Some(html) = &output.html {
        html::named(html)?;
        outfile::check(html, &used)?;
    }
    let points = profile.study.points()?;
    interrupt::install(Idle::Exit)?;
    let answering = Answering::begin();
    let stopped = || answering.stopped();
    let file = output.file.as_deref().map(Growing::new).transpose()?;
    let lab = Lab::open(common, output.skip_gate, &stopped).await?;
    match &profile.study {
        Study::Operators(args) => operators::run(common, args, lab, file).await,
        Study::DepthWidth(args) => depth_width::run(common, args, points, lab, file).await,
    }
}
