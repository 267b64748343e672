//! Reads files of benchmark rows: a report as JSON, or rows as JSON lines.

use crate::lines;
use anyhow::{Context as _, Result, bail};
use nemoflash_bench::report::{Report, Row, SCHEMA};
use serde::Deserialize;
use serde::de::IgnoredAny;
use std::path::Path;

/// Longest file in bytes: it is held in memory.
const MAX_FILE: u64 = 64 << 20;
/// Most rows of all files together.
const MAX_ROWS: usize = 2_000;
/// Most samples of a row. The bootstrap draws each of them thousands of times.
const MAX_SAMPLES: usize = 1_000;
/// Longest name, in bytes.
const MAX_NAME: usize = 200;

/// The contents of all files.
#[derive(Debug, Default)]
pub struct Rows {
    /// The rows, each with the index of its file.
    pub rows: Vec<(usize, Row)>,
    /// What was left out, and why.
    pub notes: Vec<String>,
}

/// The fields that every report and every row has.
#[derive(Deserialize)]
struct Head {
    schema: Option<String>,
    rows: Option<IgnoredAny>,
}

/// Reads all files.
///
/// # Errors
/// If a file cannot be read, has another schema, or has no row.
pub fn all(paths: &[impl AsRef<Path>]) -> Result<Rows> {
    let mut found = Rows::default();
    for (index, path) in paths.iter().enumerate() {
        let shown = path.as_ref().display().to_string();
        let text = lines::file(path.as_ref(), &shown, MAX_FILE)?;
        let rows = rows(text.trim_start_matches('\u{feff}'), &shown, &mut found.notes)?;
        if rows.is_empty() {
            bail!("{shown} has no rows. Measure again with `nemoflash bench`");
        }
        found.rows.extend(rows.into_iter().map(|row| (index, row)));
        if found.rows.len() > MAX_ROWS {
            bail!("more than {MAX_ROWS} rows with {shown}. Compare fewer files at a time");
        }
    }
    Ok(found)
}

/// The rows of a file's text; `shown` is the file's name for people.
///
/// # Errors
/// As [`all`].
pub fn rows(text: &str, shown: &str, notes: &mut Vec<String>) -> Result<Vec<Row>> {
    let rows = match serde_json::from_str::<Head>(text) {
        Ok(head) => {
            known(&head, shown)?;
            let parsed = match head.rows {
                Some(_) => serde_json::from_str::<Report>(text).map(|report| report.rows),
                None => serde_json::from_str(text).map(|row| vec![row]),
            };
            parsed.with_context(|| format!("{shown} is not what its schema says. Measure again"))?
        }
        Err(_) => json_lines(text, shown, notes)?,
    };
    for (row, at) in rows.iter().zip(1..) {
        let place = format!("{shown}, row {at}");
        let head = Head { schema: Some(row.schema.clone()), rows: None };
        known(&head, &place)?;
        fit(row, &place)?;
    }
    Ok(rows)
}

/// Checks a row. `place` says in errors where the row is.
///
/// # Errors
/// If comparing the row would take too long, or if it has impossible numbers.
pub fn fit(row: &Row, place: &str) -> Result<()> {
    if row.time.samples.len() > MAX_SAMPLES {
        bail!("{place} has more than {MAX_SAMPLES} samples. Measure with fewer repetitions");
    }
    if [&row.model.name, &row.test.name, &row.device.adapter].iter().any(|name| name.len() > MAX_NAME) {
        bail!("{place} has a name of more than {MAX_NAME} bytes. Measure again");
    }
    let positive = |values: &[f64], least: f64| values.iter().all(|&value| value.is_finite() && value >= least);
    if !positive(&row.time.samples, f64::MIN_POSITIVE) || !positive(&row.time.token_samples, 0.0) {
        bail!("{place} has a time that is not positive. Measure again");
    }
    Ok(())
}

/// Reads JSON lines. A last line that is cut off is left out with a note: a run that was killed leaves such a line.
fn json_lines(text: &str, shown: &str, notes: &mut Vec<String>) -> Result<Vec<Row>> {
    let lines: Vec<(usize, &str)> = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()).collect();
    let mut rows = vec![];
    for (index, &(at, line)) in lines.iter().enumerate() {
        let place = format!("{shown}, line {}", at + 1);
        match serde_json::from_str::<Head>(line) {
            Ok(head) => known(&head, &place)?,
            Err(error) if error.is_eof() && index > 0 && index + 1 == lines.len() => {
                notes.push(format!(
                    "{place} is cut off and left out: the run was stopped, or the file not copied whole"
                ));
                break;
            }
            Err(error) => {
                bail!("{place} is not JSON ({error}). Give files that `nemoflash bench --output json` or jsonl wrote")
            }
        }
        let row =
            serde_json::from_str(line).with_context(|| format!("{place} is not what its schema says. Measure again"));
        rows.push(row?);
    }
    Ok(rows)
}

/// Refuses other versions of the format. The error names the version that was found.
fn known(head: &Head, place: &str) -> Result<()> {
    match &head.schema {
        Some(schema) if schema == SCHEMA => Ok(()),
        Some(other) => {
            let other: String = other.chars().take(60).collect();
            bail!(
                "{place} is of schema `{other}`, and this nemoflash reads `{SCHEMA}`. Measure again with this version"
            )
        }
        None => bail!(
            "{place} has no `schema`: not a file of `nemoflash bench`. Measure with `nemoflash bench --output json`"
        ),
    }
}
