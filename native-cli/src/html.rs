//! HTML reports: each is one file without scripts. Its content security policy allows only its own style.

pub mod chart;
pub mod units;

use crate::report::Usage;
use anyhow::{Context as _, Result};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use minijinja::Environment;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use std::path::Path;

/// The template's name ends in `.html`, so minijinja escapes every value.
const NAME: &str = "page.html";
const STYLE: &str = include_str!("html/style.css");
/// What the template of every report begins with: the macros of charts, then the head.
const BEGIN: &str = concat!(include_str!("html/charts.html"), include_str!("html/head.html"));
const END: &str = "</body>\n</html>\n";

#[derive(Serialize)]
struct Page<T> {
    style: &'static str,
    /// The hash of `style`, for the policy.
    hash: String,
    title: String,
    version: &'static str,
    #[serde(flatten)]
    body: T,
}

/// Renders a report with this title. Its body is a template that can use the macros of charts, `version` and the fields of
/// `body`.
///
/// # Errors
/// If the template has a fault. No input file can cause that.
pub fn render(title: String, template: &str, body: impl Serialize) -> Result<String> {
    let mut templates = Environment::new();
    let fault = "this is a bug in nemoflash: the template of the HTML report";
    templates.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build().context(fault)?);
    templates.add_template_owned(NAME, [BEGIN, template, END].concat()).context(fault)?;
    let hash = BASE64_STANDARD.encode(Sha256::digest(STYLE));
    let page = Page { style: STYLE, hash, title, version: env!("CARGO_PKG_VERSION"), body };
    templates.get_template(NAME).and_then(|template| template.render(Serde(page))).context(fault)
}

/// Checks, before anything is measured, whether a report may have this name.
///
/// # Errors
/// If it does not end in `.html`.
pub fn named(path: &Path) -> Result<()> {
    if path.extension().is_some_and(|kind| kind.eq_ignore_ascii_case("html")) {
        return Ok(());
    }
    Err(Usage(format!("--html {} does not end in .html. Give the report a name that does", path.display())).into())
}
