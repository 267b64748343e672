//! Writes results. `FILE.part` gets them as soon as there are any, so that a run that ends early keeps them.

use super::options::Output;
use crate::args::Common;
use crate::outfile::{self, Growing};
use crate::terminal;
use anyhow::Result;
use serde::Serialize;

/// Writes the results so far to `FILE.part`, if a file is wanted.
///
/// # Errors
/// If it cannot be written.
pub fn keep(file: &mut Option<Growing>, results: &impl Serialize) -> Result<()> {
    let text = format!("{}\n", serde_json::to_string_pretty(results)?);
    file.as_mut().map_or(Ok(()), |file| file.keep(&text))
}

/// Writes all results: the file, the HTML report, and JSON or a text on stdout.
///
/// # Errors
/// If that fails.
pub fn write(
    common: &Common,
    output: &Output,
    file: Option<Growing>,
    results: &impl Serialize,
    warnings: &[String],
    text: impl FnOnce() -> String,
    page: impl FnOnce() -> Result<String>,
) -> Result<()> {
    let json = format!("{}\n", serde_json::to_string_pretty(results)?);
    file.map_or(Ok(()), |file| file.finish(&json))?;
    if let Some(path) = &output.html {
        outfile::write(path, page()?.as_bytes())?;
    }
    match common.json {
        true => terminal::print(&json)?,
        false => {
            warnings.iter().for_each(|warning| terminal::note(&format!("note: {warning}")));
            terminal::print(&text())?;
        }
    }
    for path in output.file.iter().chain(&output.html) {
        terminal::note(&format!("[wrote {}]", path.display()));
    }
    Ok(())
}

/// A table whose columns are as wide as their longest cell. The first `left` columns are aligned to the left, all others to the
/// right.
pub fn table(head: &[&str], rows: &[Vec<String>], left: usize) -> String {
    let width = |at: usize| {
        let cells = rows.iter().filter_map(|row| row.get(at)).map(|cell| cell.chars().count());
        cells.chain([head[at].chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let cell = |at: usize, text: &str| match at < left {
        true => format!("{text:<width$}", width = widths[at]),
        false => format!("{text:>width$}", width = widths[at]),
    };
    let line = |cells: &mut dyn Iterator<Item = String>| format!("| {} |\n", cells.collect::<Vec<_>>().join(" | "));
    let mut text = line(&mut head.iter().enumerate().map(|(at, name)| cell(at, name)));
    let rule = |at: usize| match at < left {
        true => "-".repeat(widths[at]),
        false => format!("{}:", "-".repeat(widths[at].saturating_sub(1))),
    };
    text += &line(&mut (0..head.len()).map(rule));
    for row in rows {
        text += &line(&mut row.iter().enumerate().map(|(at, text)| cell(at, text)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_under_each_other() {
        let rows = [vec!["a".to_owned(), "1.5".into()], vec!["long".into(), "10".into()]];
        let text = table(&["name", "ms"], &rows, 1);
        assert_eq!(text, "| name |  ms |\n| ---- | --: |\n| a    | 1.5 |\n| long |  10 |\n");
    }
}
