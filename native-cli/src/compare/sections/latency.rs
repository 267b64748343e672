//! The time of a token: by the depth of the text, and its percentiles.

use super::Charts;
use crate::compare::columns::key;
use crate::compare::table::{Comparison, Group, Line};
use crate::html::chart::{Axis, Key, Lines, Names, Scale, Values, percent};
use crate::html::units::{digits, seconds_in};
use nemoflash_bench::report::{Clock, Kind};
use serde::Serialize;

/// A chart for each combination of model, batch size and clock that has at least two depths.
pub fn depth(comparison: &Comparison) -> Vec<Lines> {
    let mut charts = vec![];
    for group in &comparison.groups {
        let decode = || group.tests.iter().filter(|line| line.test.kind == Kind::Decode);
        let mut batches: Vec<u32> = decode().map(|line| line.test.batch).collect();
        batches.dedup();
        for batch in batches {
            for clock in [Clock::Wall, Clock::Device] {
                let lines: Vec<&Line> = decode().filter(|line| line.test.batch == batch).collect();
                charts.extend(chart(comparison, group, &lines, clock));
            }
        }
    }
    charts
}

fn chart(comparison: &Comparison, group: &Group, lines: &[&Line], clock: Clock) -> Option<Lines> {
    let columns = &comparison.columns;
    let data: Vec<(Key, Values)> = (0..columns.len())
        .filter(|&at| columns[at].clock == clock)
        .map(|at| (key(columns, at), steps(lines, at)))
        .collect();
    let deep = data.iter().any(|(_, values)| values.len() > 1);
    let batch = lines.first().map_or(1, |line| line.test.batch);
    let many = if batch > 1 { format!(", {batch} sequences at a time") } else { String::new() };
    let clocked = if clock == Clock::Device { ", by the device's clock" } else { "" };
    let title = format!("{}{many}{clocked}", group.title);
    let (x, y) = ("tokens in front", "milliseconds a token");
    let names = Names { who: "Device", x, y, unit: "ms", scale: Scale::Even };
    deep.then(|| Lines::new(title, names, data))
}

/// Milliseconds of a decode step at each depth, in one column.
fn steps(lines: &[&Line], at: usize) -> Values {
    let mut values: Values = vec![];
    for line in lines {
        let Some(cell) = line.cells[at].as_ref().filter(|cell| cell.good().is_some()) else { continue };
        let depth = f64::from(line.test.depth);
        let each = 1e3 / f64::from(line.test.tokens.max(1));
        // If a depth was measured with several numbers of tokens, the first is shown.
        if let Some(time) = cell.row.time.seconds.filter(|_| values.iter().all(|value| value[0] != depth)) {
            values.push([depth, time.median * each, time.low * each, time.high * each]);
        }
    }
    values.sort_by(|a, b| a[0].total_cmp(&b[0]));
    values
}

/// Percentiles of the times between tokens, in one test.
#[derive(Debug, Serialize)]
pub struct Spread {
    title: String,
    caption: String,
    unit: &'static str,
    rows: Vec<Strip>,
}

/// The percentiles of one device.
#[derive(Debug, Serialize)]
struct Strip {
    key: Key,
    /// Positions of the three percentiles and of the maximum in the drawing.
    at: [String; 4],
    /// The same four values as texts.
    texts: [String; 4],
    /// Number of times.
    count: usize,
}

/// A chart for each test with times of single tokens.
pub fn percentiles(comparison: &Comparison) -> Charts<Spread> {
    Charts::of(comparison, |group, line| spread(comparison, group, line))
}

fn spread(comparison: &Comparison, group: &Group, line: &Line) -> Option<Spread> {
    let rows: Vec<_> = line
        .good()
        .filter_map(|(at, cell, _)| {
            let p = cell.row.time.token_seconds?;
            Some((at, cell.row.time.token_samples.len(), [p.p50, p.p90, p.p99, p.max]))
        })
        .collect();
    let most = rows.iter().map(|(_, _, p)| p[3]).fold(0.0, f64::max);
    let least = rows.iter().map(|(_, _, p)| p[0]).filter(|&x| x > 0.0).fold(f64::INFINITY, f64::min);
    let axis = Axis::new(least, most);
    let (times, unit) = seconds_in(most);
    let strip = |(at, count, p): (usize, usize, [f64; 4])| Strip {
        key: key(&comparison.columns, at),
        at: p.map(|x| percent(axis.place(x))),
        texts: p.map(|x| digits(x * times)),
        count,
    };
    let scale = if axis.log { "logarithmic scale" } else { "scale from 0" };
    let rows: Vec<Strip> = rows.into_iter().map(strip).collect();
    (!rows.is_empty()).then(|| Spread {
        title: line.test.name.clone(),
        caption: format!("{}; {unit} from token to token, less is better; {scale}", group.title),
        unit,
        rows,
    })
}
