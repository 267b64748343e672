//! `nemoflash compare`: benchmark rows of any machines side by side, on the terminal, as data and as a page.

mod columns;
mod findings;
mod html;
mod label;
mod ratio;
mod read;
mod sections;
mod table;
mod text;

use crate::args::Common;
use crate::report::Exit;
use crate::{page, terminal};
use anyhow::{Result, bail};
use std::path::PathBuf;

/// Most columns that anybody can read.
const MAX_COLUMNS: usize = 64;

/// The options.
#[derive(Debug, clap::Args)]
pub struct Compare {
    /// Files that `nemoflash bench` wrote (json or jsonl), at most 64 MiB each; the first device is what others are held against
    #[arg(value_name = "FILE", required = true, help_heading = "Arguments")]
    pub files: Vec<PathBuf>,
    /// Also write the page: one file, without scripts, for any browser
    #[arg(long, value_name = "REPORT.html")]
    pub html: Option<PathBuf>,
}

/// Runs the command.
///
/// # Errors
/// If a file cannot be read or is of another schema, or the page cannot be written.
pub fn run(common: &Common, args: &Compare) -> Result<Exit> {
    args.html.as_deref().map_or(Ok(()), page::named)?;
    let read::Rows { rows, notes } = read::all(&args.files)?;
    let files: Vec<String> = args.files.iter().map(|path| name(path)).collect();
    let comparison = table::Comparison::new(rows, &files, notes);
    if comparison.columns.len() > MAX_COLUMNS {
        bail!("more than {MAX_COLUMNS} devices and runs. Compare fewer files at a time");
    }
    if let Some(path) = &args.html {
        page::write(path, &html::page(&comparison)?)?;
    }
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

/// A file's name without its folder: what a page may show.
fn name(path: &std::path::Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}
