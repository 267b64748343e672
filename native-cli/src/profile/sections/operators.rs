//! The HTML report of the look-up table.

use super::{Head, OVER_HIDDEN, about, series, signed, verdict};
use crate::html;
use crate::html::chart::{Bar, Bars, Key, Lines, Names, Values};
use crate::html::units::{bytes, digits, seconds, thousands};
use anyhow::Result;
use nemoflash_bench::lookup::{Entry, HeldOut, LIMIT, Part, Table};
use serde::Serialize;

const TEMPLATE: &str = include_str!("operators.html");

#[derive(Serialize)]
struct Body<'a> {
    head: Head<'a>,
    blocks: Vec<Lines>,
    ends: Vec<Lines>,
    depths: Vec<Lines>,
    held_out: Vec<Tested>,
    rows: Vec<Row>,
    tokens: u32,
    runs: u32,
    context: String,
}

/// An entry as texts.
#[derive(Serialize)]
struct Row {
    part: &'static str,
    hidden: String,
    batch: u32,
    depth: String,
    time: String,
    interval: String,
    weights: String,
    rate: String,
    dims: String,
    error: Option<String>,
}

/// Renders the report.
///
/// # Errors
/// As [`html::render`].
pub fn operators(table: &Table) -> Result<String> {
    let headline = match &table.accuracy {
        Some(accuracy) if accuracy.beyond == 0 => {
            format!("A sum of blocks predicts whole models within {:.1} %", accuracy.max * 100.0)
        }
        Some(accuracy) => format!("Predictions are off by up to {:.0} %: do not rely on them", accuracy.max * 100.0),
        None => "What a block adds to a decode step".to_owned(),
    };
    let mut batches: Vec<u32> = table.entries.iter().map(|entry| entry.batch).collect();
    batches.sort_unstable();
    batches.dedup();
    let about = about(&table.device, table.gate, &table.weights, &table.kv, &table.date);
    let more = table.accuracy.iter().map(verdict).collect();
    let body = Body {
        head: Head {
            brand: "nemoflash profile operators",
            headline: headline.clone(),
            about,
            more,
            warnings: &table.warnings,
        },
        blocks: batches.iter().filter_map(|&batch| blocks(table, batch)).collect(),
        ends: ends(table, &batches).into_iter().collect(),
        depths: batches.iter().filter_map(|&batch| depths(table, batch)).collect(),
        held_out: held_out(table),
        rows: table.entries.iter().map(row).collect(),
        tokens: table.tokens,
        runs: table.runs,
        context: thousands(table.context.into()),
    };
    html::render(headline, TEMPLATE, body)
}

/// Microseconds of the entries that `of` accepts, by the value of `x`.
fn values(table: &Table, of: impl Fn(&Entry) -> bool, x: fn(&Entry) -> u32) -> Values {
    let point = |entry: &Entry| {
        let [y, low, high] = [entry.seconds?, entry.low?, entry.high?].map(|seconds| seconds * 1e6);
        Some([f64::from(x(entry)), y, low, high])
    };
    let mut values: Values = table.entries.iter().filter(|entry| of(entry)).filter_map(point).collect();
    values.sort_by(|a, b| a[0].total_cmp(&b[0]));
    values
}

fn at_a_time(batch: u32) -> String {
    if batch == 1 { "One sequence".into() } else { format!("{batch} sequences at a time") }
}

/// A chart of blocks by hidden size, with attention at the smallest and at the largest depth.
fn blocks(table: &Table, batch: u32) -> Option<Lines> {
    let mut list = vec![];
    let of_part = |part: Part| table.entries.iter().filter(move |entry| entry.part == part);
    for part in Part::BLOCKS {
        let depths: Vec<u32> = of_part(part).filter_map(|entry| entry.depth).collect();
        let ends = [depths.iter().min().copied(), depths.iter().max().copied()];
        let mut ends = ends.to_vec();
        ends.dedup();
        for depth in ends {
            let of = |entry: &Entry| (entry.part, entry.batch, entry.depth) == (part, batch, depth);
            let behind = depth.map_or(String::new(), |depth| format!(" @ {}", thousands(depth.into())));
            list.push((format!("{}{behind}", part.name()), values(table, of, |entry| entry.hidden)));
        }
    }
    list.retain(|(_, values)| !values.is_empty());
    (!list.is_empty()).then(|| Lines::new(at_a_time(batch), OVER_HIDDEN, series(list)))
}

/// A chart of the ends by hidden size.
fn ends(table: &Table, batches: &[u32]) -> Option<Lines> {
    let of = |batch: u32| values(table, |entry| (entry.part, entry.batch) == (Part::Ends, batch), |entry| entry.hidden);
    let list: Vec<_> = batches.iter().map(|&batch| (at_a_time(batch), of(batch))).collect();
    let names = Names { who: "Sequences", y: "microseconds a step", ..OVER_HIDDEN };
    let title = format!("Vocabulary of {}", thousands(table.shape.vocab.into()));
    list.iter().any(|(_, values)| !values.is_empty()).then(|| Lines::new(title, names, series(list)))
}

/// A chart of attention by depth, with a line for each hidden size.
fn depths(table: &Table, batch: u32) -> Option<Lines> {
    let mut sizes: Vec<u32> = table.entries.iter().map(|entry| entry.hidden).collect();
    sizes.sort_unstable();
    sizes.dedup();
    let of = |hidden: u32| {
        let of = |entry: &Entry| (entry.part, entry.batch, entry.hidden) == (Part::Attention, batch, hidden);
        values(table, of, |entry| entry.depth.unwrap_or(0))
    };
    let list: Vec<_> = sizes.iter().map(|&hidden| (format!("hidden size {hidden}"), of(hidden))).collect();
    let names = Names { who: "Hidden size", x: "tokens in front", ..OVER_HIDDEN };
    let deep = list.iter().any(|(_, values)| values.len() > 1);
    deep.then(|| Lines::new(at_a_time(batch), names, series(list)))
}

/// A held-out stack.
#[derive(Serialize)]
struct Tested {
    chart: Bars,
    /// The largest error, as text.
    worst: String,
}

/// A chart for each held-out stack.
fn held_out(table: &Table) -> Vec<Tested> {
    let most = |name: &str| {
        let of = table.held_out.iter().filter(|stack| stack.name == name).filter_map(|stack| stack.measured);
        of.map(|measured| measured.high.max(measured.median)).fold(0.0, f64::max)
    };
    let mut charts: Vec<Bars> = vec![];
    for stack in &table.held_out {
        let bar = bar(stack, most(&stack.name));
        match charts.last_mut() {
            Some(chart) if chart.title == stack.name => chart.rows.push(bar),
            _ => {
                let caption = format!("hidden size {}: {}; less is better", stack.hidden, stack.blocks);
                charts.push(Bars { title: stack.name.clone(), caption, rows: vec![bar] });
            }
        }
    }
    let tested = |chart: Bars| {
        let errors = table.held_out.iter().filter(|stack| stack.name == chart.title).filter_map(|stack| stack.error);
        let worst = errors.max_by(|a, b| a.abs().total_cmp(&b.abs()));
        Tested { chart, worst: worst.map_or("no result".into(), |worst| format!("largest error {}", signed(worst))) }
    };
    charts.into_iter().map(tested).collect()
}

fn bar(stack: &HeldOut, most: f64) -> Bar {
    let many = if stack.batch == 1 { "1 sequence".into() } else { format!("{} sequences", stack.batch) };
    let behind = format!("behind {} tokens", thousands(stack.depth.into()));
    let key = Key::new(0, &stack.batch.to_string(), &many, &behind, &many);
    let Some((predicted, error)) = stack.predicted.zip(stack.error) else {
        let note = stack.why.clone().unwrap_or_default();
        return Bar { note, ..Bar::of(key, None, 1.0) };
    };
    Bar {
        value: stack.measured.map(|measured| seconds(measured.median)).unwrap_or_default(),
        note: format!("predicted {}: {}", seconds(predicted), signed(error)),
        tone: if error.abs() > LIMIT { "bad" } else { "better" },
        ..Bar::of(key, stack.measured, most)
    }
}

fn row(entry: &Entry) -> Row {
    let microseconds = |value: Option<f64>| value.map_or("-".into(), |value| digits(value * 1e6));
    let dims: Vec<String> = entry.dims.iter().map(|(name, value)| format!("{name} {value}")).collect();
    let rate = entry.seconds.filter(|seconds| *seconds > 0.0 && entry.batch == 1);
    Row {
        part: entry.part.name(),
        hidden: entry.hidden.to_string(),
        batch: entry.batch,
        depth: entry.depth.map_or("any".into(), |depth| thousands(depth.into())),
        time: microseconds(entry.seconds),
        interval: format!("{} to {}", microseconds(entry.low), microseconds(entry.high)),
        weights: bytes(entry.bytes as f64),
        rate: rate.map_or("-".into(), |seconds| format!("{}/s", bytes(entry.bytes as f64 / seconds))),
        dims: dims.join(", "),
        error: entry.error.clone(),
    }
}
