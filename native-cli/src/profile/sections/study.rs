//! The HTML report of depth and width.

use super::{Head, about, series, signed};
use crate::html;
use crate::html::chart::{Lines, Names, Scale, Values};
use crate::html::units::{digits, short, thousands};
use crate::profile::depth_width::{law_text, sentence};
use crate::profile::law::Told;
use crate::profile::study::{DepthWidth, Measured};
use anyhow::Result;
use serde::Serialize;

const TEMPLATE: &str = include_str!("study.html");

#[derive(Serialize)]
struct Body<'a> {
    head: Head<'a>,
    latency: Option<Lines>,
    loss: Option<Lines>,
    trade: Option<Lines>,
    law: Option<String>,
    points: Vec<[String; 5]>,
    rows: Vec<Row>,
    tokens: u32,
    before: u32,
    runs: u32,
    pattern: &'a str,
    vocab: String,
}

/// A stack as texts.
#[derive(Serialize)]
struct Row {
    texts: [String; 7],
    error: Option<String>,
}

/// Renders the report.
///
/// # Errors
/// As [`html::render`].
pub fn depth_width(results: &DepthWidth) -> Result<String> {
    let headline = "What depth and width cost at decode".to_owned();
    let mut more: Vec<String> = results.sweet_spots.iter().map(sentence).collect();
    if results.law.is_none() {
        more.push("This is only the latency half: losses of trained models (--points) were not given.".into());
    }
    let milliseconds = |stack: &Measured| stack.seconds.map(|s| [s.median, s.low, s.high].map(|x| x * 1e3));
    let loss = |stack: &Measured| stack.loss.map(|loss| [loss; 3]);
    let about = about(&results.device, results.gate, &results.weights, &results.kv, &results.date);
    let told = |point: &Told| {
        let numbers = [point.depth, point.width].map(thousands);
        let [depth, width] = numbers;
        let error = signed(point.predicted / point.loss - 1.0);
        [depth, width, digits(point.loss), digits(point.predicted), error]
    };
    let law = results.law.as_ref();
    let head = Head {
        brand: "nemoflash profile depth-width",
        headline: headline.clone(),
        about,
        more,
        warnings: &results.warnings,
    };
    let body = Body {
        head,
        latency: lines(results, "Latency", "milliseconds a token", "ms", milliseconds),
        loss: law.and_then(|_| lines(results, "Loss by the law", "loss", "", loss)),
        trade: law.and_then(|_| trade(results)),
        law: law.map(law_text),
        points: law.map(|law| law.points.iter().map(told).collect()).unwrap_or_default(),
        rows: results.stacks.iter().map(row).collect(),
        tokens: results.tokens,
        before: results.tokens_before,
        runs: results.runs,
        pattern: &results.pattern,
        vocab: thousands(results.shape.vocab.into()),
    };
    html::render(headline, TEMPLATE, body)
}

/// The numbers of parameters that were asked for.
fn wanted(results: &DepthWidth) -> Vec<u64> {
    let mut all: Vec<u64> = results.stacks.iter().map(|stack| stack.wanted).collect();
    all.dedup();
    all
}

/// `500 M parameters`.
fn millions(parameters: u64) -> String {
    format!("{} M parameters", short(parameters as f64 / 1e6))
}

/// A chart by depth, with a line for each number of parameters.
fn lines(
    results: &DepthWidth,
    title: &str,
    y: &'static str,
    unit: &'static str,
    of: impl Fn(&Measured) -> Option<[f64; 3]>,
) -> Option<Lines> {
    let values = |parameters: u64| {
        let mine = results.stacks.iter().filter(|stack| stack.wanted == parameters);
        let point = |stack: &Measured| of(stack).map(|[y, low, high]| [f64::from(stack.depth), y, low, high]);
        let mut values: Values = mine.filter_map(point).collect();
        values.sort_by(|a, b| a[0].total_cmp(&b[0]));
        values
    };
    let list: Vec<_> =
        wanted(results).into_iter().map(|parameters| (millions(parameters), values(parameters))).collect();
    let scale = if unit.is_empty() { Scale::Near } else { Scale::Even };
    let names = Names { who: "Parameters", x: "depth", y, unit, scale };
    list.iter().any(|(_, values)| !values.is_empty()).then(|| Lines::new(title.into(), names, series(list)))
}

/// A chart of loss by latency, which shows the loss that a latency budget allows.
fn trade(results: &DepthWidth) -> Option<Lines> {
    let values = |parameters: u64| {
        let mine = results.stacks.iter().filter(|stack| stack.wanted == parameters);
        let point = |stack: &Measured| {
            let (time, loss) = (stack.seconds?.median * 1e3, stack.loss?);
            Some([time, loss, loss, loss])
        };
        let mut values: Values = mine.filter_map(point).collect();
        values.sort_by(|a, b| a[0].total_cmp(&b[0]));
        values
    };
    let list: Vec<_> =
        wanted(results).into_iter().map(|parameters| (millions(parameters), values(parameters))).collect();
    let (x, y) = ("milliseconds a token", "loss");
    let names = Names { who: "Parameters", x, y, unit: "", scale: Scale::Both };
    list.iter()
        .any(|(_, values)| !values.is_empty())
        .then(|| Lines::new("Loss over latency".into(), names, series(list)))
}

fn row(stack: &Measured) -> Row {
    let time = |x: Option<f64>| x.map_or("-".into(), digits);
    let seconds = stack.seconds;
    let interval = seconds.map_or("-".into(), |s| format!("{} to {}", digits(s.low * 1e3), digits(s.high * 1e3)));
    Row {
        texts: [
            stack.depth.to_string(),
            stack.width.to_string(),
            digits(stack.parameters as f64 / 1e6),
            time(seconds.map(|s| s.median * 1e3)),
            interval,
            time(seconds.map(|s| s.median * 1024.0)),
            time(stack.loss),
        ],
        error: stack.error.clone(),
    }
}
