//! The nemoflash command: files, terminal and exit codes around the `nemoflash` library. This is a library only so that the
//! fuzz targets reach the readers of files; use the crate `nemoflash` from Rust.
#![forbid(unsafe_code)]
// These macros panic if the reader of a pipe has gone. `terminal` and `report` do not.
#![deny(clippy::print_stdout, clippy::print_stderr)]

mod answer;
mod arch;
mod args;
mod bench;
mod chat;
mod compare;
mod devices;
mod doctor;
mod explain;
mod folder;
#[doc(hidden)]
pub mod fuzz;
mod generate;
mod html;
mod hub;
mod interrupt;
mod lines;
mod logits;
mod manual;
mod memory;
mod open;
mod outfile;
mod perplexity;
mod profile;
mod quantize;
mod quiet;
mod report;
mod source;
mod synthesize;
mod terminal;
mod unused;
mod verify;

use args::{Cli, Command};
use report::Exit;
use std::process::ExitCode;

/// The command: reads the arguments of the process, runs, and says how it ended.
pub fn main() -> ExitCode {
    report::panics_in_one_line();
    let cli = match Cli::read() {
        Ok(cli) => cli,
        Err(error) => return report::usage(&error),
    };
    if cli.common.verbose {
        env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("info")).init();
    }
    report::exit(pollster::block_on(run(cli)))
}

async fn run(cli: Cli) -> anyhow::Result<Exit> {
    let common = &cli.common;
    match cli.command.unwrap_or(Command::Generate(cli.generate)) {
        Command::Generate(args) => generate::run(common, &args).await,
        Command::Bench(args) => bench::run(common, &args).await,
        Command::Chat(args) => chat::run(common, &args).await,
        Command::Compare(args) => compare::run(common, &args),
        Command::Devices => devices::run(common).await,
        Command::Doctor => doctor::run(common).await,
        Command::Explain => explain::run(common).await,
        Command::Logits(args) => logits::run(common, &args).await,
        Command::Quantize(args) => quantize::run(common, &args),
        Command::Synthesize(args) => synthesize::run(common, &args),
        Command::Profile(args) => profile::run(common, &args).await,
        Command::Perplexity(args) => perplexity::run(common, &args).await,
        Command::Verify => verify::run(common),
        Command::Completions(args) => manual::completions(&args),
        Command::Man(args) => manual::man(&args),
    }
}
