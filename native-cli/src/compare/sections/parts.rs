//! Which parts of the model, and which operators, take the time of a step.

use super::Charts;
use crate::compare::columns::key;
use crate::compare::table::{Comparison, Line};
use crate::html::chart::{Key, percent};
use crate::html::units::{bytes, digits, seconds, share};
use nemoflash_bench::report::{Operator, Row};
use serde::Serialize;

/// The parts of a model in the order in which a step runs them. Parts of other names are counted as the last one.
pub const PARTS: [&str; 8] = ["embedding", "attention", "mamba2", "deltanet", "ffn", "head", "pick", "other"];
/// Most operators that a table lists.
const LARGEST: usize = 8;
/// Smallest share of the bar that a piece needs for a text inside it.
const ROOM: f64 = 0.065;

/// The bars and tables of one test.
#[derive(Debug, Serialize)]
pub struct Where {
    title: String,
    caption: String,
    /// The parts that occur.
    parts: Vec<Part>,
    bars: Vec<Stack>,
}

#[derive(Debug, Serialize)]
struct Part {
    name: &'static str,
    /// Index in [`PARTS`], which chooses the colour.
    at: usize,
}

#[derive(Debug, Serialize)]
struct Stack {
    key: Key,
    /// Time of all operators together.
    total: String,
    pieces: Vec<Piece>,
    /// The share of each part of the chart, as text.
    shares: Vec<String>,
    operators: Vec<Entry>,
    /// Says how many operators the table leaves out.
    rest: Option<String>,
}

#[derive(Debug, Serialize)]
struct Piece {
    part: usize,
    x: String,
    width: String,
    middle: String,
    /// The text inside the piece, if there is room.
    text: Option<String>,
    /// The part's name in front of the text, if there is more room.
    name: Option<&'static str>,
}

#[derive(Debug, Serialize)]
struct Entry {
    part: String,
    kernel: String,
    op: String,
    dispatches: u32,
    time: String,
    share: String,
    rate: String,
}

/// A chart for each test whose rows have times of operators.
pub fn parts(comparison: &Comparison) -> Charts<Where> {
    Charts::of(comparison, |group, line| place(comparison, line, group.title.clone()))
}

fn place(comparison: &Comparison, line: &Line, caption: String) -> Option<Where> {
    let rows: Vec<(usize, &Row)> =
        line.good().map(|(at, cell, _)| (at, &cell.row)).filter(|(_, row)| total(row) > 0.0).collect();
    let all: Vec<[f64; PARTS.len()]> = rows.iter().map(|(_, row)| sums(row)).collect();
    let parts: Vec<Part> = (0..PARTS.len())
        .filter(|&at| all.iter().any(|sums| sums[at] > 0.0))
        .map(|at| Part { name: PARTS[at], at })
        .collect();
    let bars: Vec<Stack> = rows
        .into_iter()
        .zip(all)
        .map(|((at, row), sums)| stack(key(&comparison.columns, at), row, &sums, &parts))
        .collect();
    (!bars.is_empty()).then(|| Where { title: line.test.name.clone(), caption, parts, bars })
}

/// Seconds of all operators together.
fn total(row: &Row) -> f64 {
    let sum: f64 = row.operators.iter().map(|operator| operator.seconds.max(0.0)).sum();
    if sum.is_finite() { sum } else { 0.0 }
}

/// Seconds of each part, in the order of [`PARTS`].
fn sums(row: &Row) -> [f64; PARTS.len()] {
    let mut sums = [0.0; PARTS.len()];
    for operator in &row.operators {
        let at = PARTS.iter().position(|part| *part == operator.part).unwrap_or(PARTS.len() - 1);
        sums[at] += operator.seconds.max(0.0);
    }
    sums
}

/// The three parts that take most of a row's time, as text. None if no time is known.
pub fn largest(row: &Row) -> Option<String> {
    let total = total(row);
    let mut parts: Vec<(f64, &str)> = sums(row).into_iter().zip(PARTS).filter(|(sum, _)| *sum > 0.0).collect();
    parts.sort_by(|a, b| b.0.total_cmp(&a.0));
    let texts: Vec<String> = parts.iter().take(3).map(|(sum, part)| format!("{part} {}", share(sum / total))).collect();
    (total > 0.0).then(|| texts.join(", "))
}

fn stack(key: Key, row: &Row, sums: &[f64; PARTS.len()], parts: &[Part]) -> Stack {
    let total = total(row);
    let mut begin = 0.0;
    let mut pieces = vec![];
    for part in parts {
        let width = sums[part.at] / total;
        if width > 0.0 {
            let text = (width >= ROOM).then(|| share(width));
            let name = (width >= ROOM * 2.5).then_some(part.name);
            let (x, middle) = (percent(begin), percent(begin + width / 2.0));
            pieces.push(Piece { part: part.at, x, width: percent(width), middle, text, name });
        }
        begin += width;
    }
    let mut operators: Vec<&Operator> = row.operators.iter().collect();
    operators.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
    let rest = operators.len().saturating_sub(LARGEST);
    let entry = |operator: &&Operator| Entry {
        part: operator.part.clone(),
        kernel: operator.kernel.clone(),
        op: operator.op.clone(),
        dispatches: operator.dispatches,
        time: digits(operator.seconds * 1e6),
        share: share(operator.seconds / total),
        rate: match operator.seconds > 0.0 {
            true => format!("{}/s", bytes(operator.bytes as f64 / operator.seconds)),
            false => "-".into(),
        },
    };
    let left: f64 = operators.iter().skip(LARGEST).map(|operator| operator.seconds).sum();
    Stack {
        key,
        total: seconds(total),
        pieces,
        shares: parts.iter().map(|part| share(sums[part.at] / total)).collect(),
        operators: operators.iter().take(LARGEST).map(entry).collect(),
        rest: (rest > 0).then(|| format!("{rest} more take {}", share(left / total))),
    }
}
