//! The page: one file that needs nothing else. No script; its policy allows its own style and nothing besides.

use super::chart::{Bars, Lines};
use super::findings::{Findings, findings};
use super::ratio::ENOUGH;
use super::sections::{Charts, Titled, browser, full, latency, memory, parts, speed, tokens};
use super::table::Comparison;
use anyhow::{Context as _, Result};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use minijinja::Environment;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

/// Its name ends in `.html`, so everything that is put in is escaped.
const NAME: &str = "report.html";
const TEMPLATE: &str = include_str!("report.html");
const STYLE: &str = include_str!("report.css");

#[derive(Serialize)]
struct Page<'a> {
    style: &'a str,
    /// Of `style`, for the policy.
    hash: String,
    version: &'a str,
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
    /// Fewest samples for a verdict.
    enough: usize,
}

/// Writes it.
///
/// # Errors
/// None that a file could cause; a fault in the template.
pub fn page(comparison: &Comparison) -> Result<String> {
    let mut templates = Environment::new();
    let fault = "this is a bug in nemoflash: the page's template";
    templates.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build().context(fault)?);
    templates.add_template(NAME, TEMPLATE).context(fault)?;
    let page = Page {
        style: STYLE,
        hash: BASE64_STANDARD.encode(Sha256::digest(STYLE)),
        version: env!("CARGO_PKG_VERSION"),
        findings: findings(comparison),
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
    templates.get_template(NAME).and_then(|template| template.render(Serde(page))).context(fault)
}
