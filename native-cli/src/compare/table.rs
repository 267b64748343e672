//! The comparison: a line for each test, a column for each device.

use super::agree::{Said, said};
use super::columns::{Column, columns};
use super::ratio::Ratio;
use crate::html::units::Unit;
use nemoflash_bench::report::{Clock, Gate, Kind, Model, Row, Summary, Test};
use serde::Serialize;

/// The version of what `--json` prints.
const SCHEMA: &str = "nemoflash-compare/1";

/// All rows, sorted into groups, lines and columns.
#[derive(Debug, Serialize)]
pub struct Comparison {
    /// [`SCHEMA`].
    schema: &'static str,
    /// The devices that are compared.
    pub columns: Vec<Column>,
    /// The tests, by model.
    pub groups: Vec<Group>,
    /// What was left out, and why.
    pub notes: Vec<String>,
}

/// The tests of one model with one kind of weights.
#[derive(Debug, Serialize)]
pub struct Group {
    /// The model's name, with its weights and how keys and values are kept.
    pub title: String,
    /// Each test once.
    pub tests: Vec<Line>,
    /// For each column: the tokens that the model gave there. None if the column has no row.
    pub said: Vec<Option<Said>>,
}

/// One test on every device.
#[derive(Debug, Serialize)]
pub struct Line {
    /// The test.
    pub test: Test,
    /// `tokens/s`, of which more is better, or `s`.
    pub unit: &'static str,
    /// A cell for each column. None if the test was not run there.
    pub cells: Vec<Option<Cell>>,
}

/// One test on one device.
#[derive(Debug, Serialize)]
pub struct Cell {
    /// The result in the line's unit. None if there is no result.
    pub value: Option<Summary>,
    /// Number of samples.
    pub samples: usize,
    /// Speed relative to the first column of the line that has the same clock and a result. None for that column itself.
    pub ratio: Option<Ratio>,
    /// What the ratio says, in words, or why there is none.
    pub verdict: String,
    /// Whether there is no result, or the golden check failed on the device.
    pub failed: bool,
    /// The row that the cell was made from.
    #[serde(skip)]
    pub row: Row,
}

impl Cell {
    /// The value, unless the golden check failed on the device.
    pub fn good(&self) -> Option<Summary> {
        self.value.filter(|_| !self.failed)
    }
}

impl Line {
    /// The unit of its values.
    pub fn counts(&self) -> Unit {
        unit(self.test.kind)
    }

    /// Its cells, each with the index of its column.
    pub fn filled(&self) -> impl Iterator<Item = (usize, &Cell)> {
        self.cells.iter().enumerate().filter_map(|(at, cell)| Some((at, cell.as_ref()?)))
    }

    /// The cells of [`Line::filled`] with a value, without those whose golden check failed.
    pub fn good(&self) -> impl Iterator<Item = (usize, &Cell, Summary)> {
        self.filled().filter_map(|(at, cell)| Some((at, cell, cell.good()?)))
    }
}

impl Comparison {
    /// Makes the comparison from rows. Each row comes with the index of its file.
    pub fn new(rows: Vec<(usize, Row)>, files: &[String], notes: Vec<String>) -> Comparison {
        let (columns, places) = columns(&rows, files);
        let mut groups: Vec<Group> = vec![];
        for ((_, row), place) in rows.into_iter().zip(places) {
            let title = title(&row.model);
            let new = || Group { title: title.clone(), tests: vec![], said: vec![] };
            let group = position(&mut groups, |group| group.title == title, new);
            let blank = || Line {
                test: row.test.clone(),
                unit: unit(row.test.kind).name(),
                cells: columns.iter().map(|_| None).collect(),
            };
            let line = position(&mut group.tests, |line| line.test == row.test, blank);
            line.cells[place] = Some(cell(row));
        }
        for group in &mut groups {
            group.tests.sort_by_key(|line| order(&line.test));
            for line in &mut group.tests {
                judge(line, &columns);
            }
            group.said = said(&group.tests, &columns);
        }
        Comparison { schema: SCHEMA, columns, groups, notes }
    }

    /// All lines, each with its group.
    pub fn lines(&self) -> impl Iterator<Item = (&Group, &Line)> {
        self.groups.iter().flat_map(|group| group.tests.iter().map(move |line| (group, line)))
    }
}

fn position<T>(list: &mut Vec<T>, wanted: impl FnMut(&T) -> bool, new: impl FnOnce() -> T) -> &mut T {
    let at = list.iter().position(wanted).unwrap_or_else(|| {
        list.push(new());
        list.len() - 1
    });
    &mut list[at]
}

fn title(model: &Model) -> String {
    let random = if model.synthetic { ", random weights" } else { "" };
    format!("{}, {}, KV in {}{random}", model.name, model.weights, model.kv)
}

fn unit(kind: Kind) -> Unit {
    match kind {
        Kind::Load | Kind::Compile | Kind::FirstToken => Unit::Seconds,
        Kind::Prefill | Kind::Decode | Kind::EndToEnd => Unit::TokensPerSecond,
    }
}

/// Sorts tests: those that people look for first come first.
fn order(test: &Test) -> impl Ord + use<> {
    let kinds = [Kind::Decode, Kind::Prefill, Kind::EndToEnd, Kind::FirstToken, Kind::Load, Kind::Compile];
    (kinds.iter().position(|kind| *kind == test.kind), test.batch, test.depth, test.prompt, test.tokens)
}

fn cell(row: Row) -> Cell {
    let value = match unit(row.test.kind) {
        Unit::Seconds => row.time.seconds,
        Unit::TokensPerSecond => row.time.tokens_per_second,
    };
    let value = value.filter(|_| row.error.is_none() && !row.time.samples.is_empty());
    let verdict = match (&row.error, row.gate) {
        (Some(error), _) => format!("failed: {error}"),
        (None, Gate::Failed) => "wrong tokens on this device: not compared".into(),
        (None, _) if value.is_none() => "no result".into(),
        (None, _) => String::new(),
    };
    Cell { value, samples: row.time.samples.len(), ratio: None, failed: !verdict.is_empty(), verdict, row }
}

/// Compares each cell with the first cell of the same clock.
fn judge(line: &mut Line, columns: &[Column]) {
    for clock in [Clock::Wall, Clock::Device] {
        let cells = line.cells.iter_mut().zip(columns).filter(|(_, column)| column.clock == clock);
        let mut good = cells.filter_map(|(cell, _)| cell.as_mut().filter(|cell| cell.good().is_some()));
        let Some(first) = good.next() else { continue };
        for cell in good {
            cell.ratio = Ratio::of(&first.row.time.samples, &cell.row.time.samples);
            cell.verdict = cell.ratio.map(|ratio| ratio.words()).unwrap_or_default();
            first.verdict = "baseline".into();
        }
    }
}
