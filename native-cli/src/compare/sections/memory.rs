//! How near decode comes to the bandwidth of the device's memory.

use crate::compare::chart::{Bar, Bars, key, percent};
use crate::compare::table::Comparison;
use crate::compare::units::{bytes, share};

/// A chart for each decode test whose rows know their share.
pub fn bandwidth(comparison: &Comparison) -> Vec<Bars> {
    let charts = comparison.lines().map(|(group, line)| Bars {
        title: line.test.name.clone(),
        caption: format!("{}; share of the device's own rate of copying memory", group.title),
        rows: line
            .good()
            .filter_map(|(at, cell, _)| {
                let (time, model) = (&cell.row.time, &cell.row.model);
                let reached = time.bandwidth_share?;
                let rate = time.bytes_per_second.map(|rate| format!("{}/s", bytes(rate)));
                let busy =
                    time.busy_share.map_or(String::new(), |busy| format!("; computes {} of the time", share(busy)));
                Some(Bar {
                    key: key(&comparison.columns, at),
                    end: Some(percent(reached)),
                    whisker: None,
                    value: share(reached),
                    interval: rate.unwrap_or_default(),
                    note: format!(
                        "{} and {} dispatches a token{busy}",
                        bytes(model.bytes_per_token as f64),
                        model.dispatches_per_token
                    ),
                    tone: "",
                })
            })
            .collect(),
    });
    charts.filter(|chart| !chart.rows.is_empty()).collect()
}
