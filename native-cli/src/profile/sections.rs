//! The data of the studies' HTML reports.

mod operators;
mod study;

pub use operators::operators;
pub use study::depth_width;

use crate::html::chart::{Key, Names, Scale, Values};
use crate::html::units::share;
use nemoflash_bench::lookup::Accuracy;
use nemoflash_bench::report::{Device, Gate};
use serde::Serialize;

/// A sentence about how well held-out stacks were predicted.
pub fn verdict(accuracy: &Accuracy) -> String {
    let Accuracy { limit, count, mean, max, beyond } = accuracy;
    let percent = |share: f64| format!("{:.1}\u{a0}%", share * 100.0);
    let end = match beyond {
        0 => format!("all within {}", percent(*limit)),
        _ => format!("{beyond} beyond {}", percent(*limit)),
    };
    format!("{count} measurements of held-out stacks: mean error {}, largest {}; {end}", percent(*mean), percent(*max))
}

/// Makes the series of a line chart from their names and values.
fn series(list: Vec<(String, Values)>) -> Vec<(Key, Values)> {
    let letter = |at: usize| char::from(b'A' + (at % 26) as u8).to_string();
    let keyed = |(at, (name, values)): (usize, (String, Values))| (Key::new(at, &letter(at), &name, "", &name), values);
    list.into_iter().enumerate().map(keyed).collect()
}

/// The head of a report.
#[derive(Debug, Serialize)]
struct Head<'a> {
    brand: &'static str,
    headline: String,
    about: String,
    more: Vec<String>,
    warnings: &'a [String],
}

/// A line that says on which device, and how, was measured.
fn about(device: &Device, gate: Gate, weights: &str, kv: &str, date: &str) -> String {
    let gate = match gate {
        Gate::Passed => "golden tokens right",
        Gate::Failed => "golden tokens WRONG",
        Gate::NotRun => "golden tokens not checked",
    };
    let driver = if device.driver.is_empty() { String::new() } else { format!(", {}", device.driver) };
    let day = date.get(..10).unwrap_or(date);
    format!("{} ({}{driver}); weights {weights}, keys and values {kv}; {gate}; {day}", device.adapter, device.backend)
}

/// Names for a chart by hidden size.
const OVER_HIDDEN: Names =
    Names { who: "Block", x: "hidden size", y: "microseconds a block", unit: "µs", scale: Scale::Even };

/// A relative error in percent, with its sign.
fn signed(error: f64) -> String {
    let sign = if error < 0.0 { "-" } else { "+" };
    format!(
        "{sign}{}",
        if error.abs() < 0.0995 { format!("{:.1}\u{a0}%", error.abs() * 100.0) } else { share(error.abs()) }
    )
}
