//! Pages that need nothing else: one file, no script, and a policy that allows its own style and nothing besides.

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

/// Its name ends in `.html`, so everything that is put in is escaped.
const NAME: &str = "page.html";
const STYLE: &str = include_str!("html/style.css");
/// What every page begins with: macros of charts, then the head.
const BEGIN: &str = concat!(include_str!("html/charts.html"), include_str!("html/head.html"));
const END: &str = "</body>\n</html>\n";

#[derive(Serialize)]
struct Page<T> {
    style: &'static str,
    /// Of `style`, for the policy.
    hash: String,
    title: String,
    version: &'static str,
    #[serde(flatten)]
    body: T,
}

/// A page with this title, whose body is a template with the charts' macros, `version` and what `body` has.
///
/// # Errors
/// None that a file could cause; a fault in the template.
pub fn render(title: String, template: &str, body: impl Serialize) -> Result<String> {
    let mut templates = Environment::new();
    let fault = "this is a bug in nemoflash: the page's template";
    templates.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build().context(fault)?);
    templates.add_template_owned(NAME, [BEGIN, template, END].concat()).context(fault)?;
    let hash = BASE64_STANDARD.encode(Sha256::digest(STYLE));
    let page = Page { style: STYLE, hash, title, version: env!("CARGO_PKG_VERSION"), body };
    templates.get_template(NAME).and_then(|template| template.render(Serde(page))).context(fault)
}

/// Whether a page may have this name, asked before anything is measured.
///
/// # Errors
/// If it does not end in `.html`.
pub fn named(path: &Path) -> Result<()> {
    if path.extension().is_some_and(|kind| kind.eq_ignore_ascii_case("html")) {
        return Ok(());
    }
    Err(Usage(format!("--html {} does not end in .html. Give the page a name that does", path.display())).into())
}
