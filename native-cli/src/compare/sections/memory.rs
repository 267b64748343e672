//! Which share of the device's memory bandwidth decode uses.

use super::Charts;
use crate::compare::columns::key;
use crate::compare::table::{Cell, Comparison};
use crate::html::chart::{Bar, Bars, percent};
use crate::html::units::{bytes, share};

/// A chart for each decode test whose rows have their share of the bandwidth.
pub fn bandwidth(comparison: &Comparison) -> Charts<Bars> {
    Charts::of(comparison, |group, line| {
        let rows = line.good().filter_map(|(at, cell, _)| bar(comparison, at, cell)).collect::<Vec<_>>();
        let moved = rows.first().and(line.good().next()).map(|(_, cell, _)| cell.row.model.bytes_per_token);
        moved.map(|moved| Bars {
            title: line.test.name.clone(),
            caption: format!("{}; at least {} a token", group.title, bytes(moved as f64)),
            rows,
        })
    })
}

fn bar(comparison: &Comparison, at: usize, cell: &Cell) -> Option<Bar> {
    let (time, model) = (&cell.row.time, &cell.row.model);
    let reached = time.bandwidth_share?;
    let busy = time.busy_share.map_or(String::new(), |busy| format!(", busy {} of the time", share(busy)));
    Some(Bar {
        end: Some(percent(reached)),
        value: share(reached),
        interval: time.bytes_per_second.map(|rate| format!("{}/s", bytes(rate))).unwrap_or_default(),
        note: format!("{} dispatches a token{busy}", model.dispatches_per_token),
        ..Bar::of(key(&comparison.columns, at), None, 1.0)
    })
}
