//! `nemoflash completions` and `nemoflash man`: the command line, described for shells and for `man`.

use crate::args::Cli;
use crate::report::Exit;
use crate::terminal;
use anyhow::{Context as _, Result};
use clap::{Args, CommandFactory as _};
use std::fs;
use std::path::{Path, PathBuf};

const NAME: &str = "nemoflash";

#[derive(Debug, Args)]
pub struct Completions {
    /// The shell
    #[arg(value_name = "SHELL", help_heading = "Arguments")]
    pub shell: clap_complete::Shell,
}

#[derive(Debug, Args)]
pub struct Man {
    /// The folder for the pages of all commands, made if it is missing; without it, the page of `nemoflash` is printed
    #[arg(value_name = "DIR", help_heading = "Arguments")]
    pub dir: Option<PathBuf>,
}

/// Prints the completions of a shell.
///
/// # Errors
/// If stdout cannot be written.
pub fn completions(args: &Completions) -> Result<Exit> {
    let mut script = vec![];
    clap_complete::generate(args.shell, &mut Cli::command(), NAME, &mut script);
    terminal::print(&String::from_utf8_lossy(&script))?;
    Ok(Exit::Done)
}

/// Prints the page of the program, or writes one page for the program and one for each command.
///
/// # Errors
/// If stdout or the folder cannot be written.
pub fn man(args: &Man) -> Result<Exit> {
    match &args.dir {
        None => terminal::print(&page()?)?,
        Some(dir) => pages(dir)
            .with_context(|| format!("cannot write the manual pages into {}: choose another folder", dir.display()))?,
    }
    Ok(Exit::Done)
}

fn page() -> Result<String> {
    let mut page = vec![];
    clap_mangen::Man::new(Cli::command()).render(&mut page)?;
    Ok(String::from_utf8_lossy(&page).into_owned())
}

fn pages(dir: &Path) -> std::io::Result<()> {
    fs::create_dir_all(dir)?;
    clap_mangen::generate_to(Cli::command(), dir)
}
