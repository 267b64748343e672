//! Losses of trained models, from a file.

use crate::lines;
use anyhow::{Context as _, Result, anyhow, bail};
use serde::Deserialize;
use std::path::Path;

/// Longest file in bytes.
const MAX_FILE: u64 = 16 << 20;
/// The most points of a file.
const MOST: usize = 10_000;

/// One trained model.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
pub struct Point {
    /// Depth: how often its pattern of blocks is repeated.
    pub depth: f64,
    /// Width: its hidden size.
    pub width: f64,
    /// Its loss, or its perplexity, which the paper uses.
    pub loss: f64,
}

/// Reads CSV with the columns depth, width and loss, or a JSON list of objects with these fields. Other columns and fields are
/// ignored.
///
/// # Errors
/// If the file cannot be read, has another form, or has a number that is not above 0.
pub fn read(path: &Path) -> Result<Vec<Point>> {
    let shown = path.display().to_string();
    of(lines::file(path, &format!("--points {shown}"), MAX_FILE)?.as_bytes(), &shown)
}

/// As [`read`], but from the bytes of a file. `shown` is the name of the file in messages.
///
/// # Errors
/// The same.
pub fn of(bytes: &[u8], shown: &str) -> Result<Vec<Point>> {
    let next = "Give CSV with the columns depth, width and loss, or a JSON list of objects with these fields";
    let points = parse(bytes).with_context(|| format!("--points {shown} cannot be read. {next}"))?;
    if points.len() > MOST {
        bail!("--points {shown} has {} points, more than {MOST}. Leave some out", points.len());
    }
    let fits = |point: &Point| [point.depth, point.width, point.loss].iter().all(|x| x.is_finite() && *x > 0.0);
    if let Some(at) = points.iter().position(|point| !fits(point)) {
        bail!("--points {shown}: a number of point {} is not above 0. Correct it, or leave the point out", at + 1);
    }
    Ok(points)
}

fn parse(bytes: &[u8]) -> Result<Vec<Point>> {
    let first = bytes.iter().find(|byte| !byte.is_ascii_whitespace());
    if matches!(first, Some(b'[' | b'{')) {
        return Ok(serde_json::from_slice(bytes)?);
    }
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(bytes);
    let points: Result<_, csv::Error> = reader.deserialize().collect();
    // The text in front of the colon says only that this is an error.
    points.map_err(|error| anyhow!(error.to_string().split_once(": ").map_or("", |(_, why)| why).to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_read() {
        let point = |depth, width, loss| Point { depth, width, loss };
        let wanted = [point(6.0, 1024.0, 3.5), point(12.0, 768.0, 3.25)];
        let csv = "name, depth, width, loss\na, 6, 1024, 3.5\nb,12,768,3.25\n";
        let json = r#"[{"depth": 6, "width": 1024, "loss": 3.5}, {"depth": 12, "width": 768, "loss": 3.25, "x": 1}]"#;
        assert_eq!(parse(csv.as_bytes()).unwrap(), wanted);
        assert_eq!(parse(json.as_bytes()).unwrap(), wanted);
        for bad in ["depth,width\n1,2\n", "depth,width,loss\n1,2,x\n", "[{\"depth\": 1}]", "{}", "\u{0}"] {
            let read = parse(bad.as_bytes());
            assert!(read.is_err() || read.is_ok_and(|points| points.is_empty()), "{bad}");
        }
    }
}
