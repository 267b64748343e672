//! The HTML report of the comparison.

use super::findings::{Findings, findings};
use super::ratio::ENOUGH;
use super::sections::{Charts, Titled, browser, full, latency, memory, parts, speed, tokens};
use super::table::Comparison;
use crate::html;
use crate::html::chart::{Bars, Lines};
use anyhow::Result;
use serde::Serialize;

const TEMPLATE: &str = include_str!("report.html");

#[derive(Serialize)]
struct Body<'a> {
    findings: Findings,
    speed: Vec<Titled>,
    tokens: Vec<tokens::Tokens>,
    depth: Vec<Lines>,
    parts: Charts<parts::Where>,
    bandwidth: Charts<Bars>,
    browser: Vec<Titled>,
    percentiles: Charts<latency::Spread>,
    machines: Vec<full::Machine>,
    rows: Vec<full::Full>,
    notes: &'a [String],
    /// Fewest samples that allow a verdict.
    enough: usize,
}

/// Renders the report.
///
/// # Errors
/// As [`html::render`].
pub fn page(comparison: &Comparison) -> Result<String> {
    let findings = findings(comparison);
    let title = findings.headline.clone();
    let body = Body {
        findings,
        speed: speed::speed(comparison),
        tokens: tokens::tokens(comparison),
        depth: latency::depth(comparison),
        parts: parts::parts(comparison),
        bandwidth: memory::bandwidth(comparison),
        browser: browser::browser(comparison),
        percentiles: latency::percentiles(comparison),
        machines: full::machines(comparison),
        rows: full::full(comparison),
        notes: &comparison.notes,
        enough: ENOUGH,
    };
    html::render(title, TEMPLATE, body)
}
