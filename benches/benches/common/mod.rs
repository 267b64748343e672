//! What both benches read from their options, and their clock.

use nemoflash::{Deny, LoadOptions, Quant, Scan};
use std::sync::LazyLock;
use std::time::Instant;

/// Seconds since the first call.
pub fn seconds() -> f64 {
    static BEGIN: LazyLock<Instant> = LazyLock::new(Instant::now);
    BEGIN.elapsed().as_secs_f64()
}

/// How random weights are kept: `bf16`, or `q8` or `q4` in groups of 64.
///
/// # Errors
/// Any other name.
pub fn weights(name: &str) -> anyhow::Result<LoadOptions> {
    let bits = match name {
        "bf16" => None,
        "q8" => Some(8),
        "q4" => Some(4),
        other => anyhow::bail!("--weights: `{other}` is not one of bf16, q8, q4"),
    };
    Ok(LoadOptions { quantise: bits.map(|bits| Quant::new(bits, 64)), ..Default::default() })
}

/// The scan of that name; `None` for the default.
///
/// # Errors
/// Any other name.
pub fn scan(name: Option<&str>) -> anyhow::Result<Option<Scan>> {
    match name {
        None => Ok(None),
        Some("serial") => Ok(Some(Scan::Serial)),
        Some("chunked") => Ok(Some(Scan::Chunked)),
        Some(other) => anyhow::bail!("--scan: `{other}` is not one of serial, chunked"),
    }
}

/// The features that are named.
///
/// # Errors
/// Any other name.
pub fn deny(names: &[String]) -> anyhow::Result<Deny> {
    let has = |name: &str| names.iter().any(|denied| denied == name);
    if let Some(other) = names.iter().find(|name| !["f16", "subgroups", "coopmat"].contains(&name.as_str())) {
        anyhow::bail!("--deny: `{other}` is not one of f16, subgroups, coopmat");
    }
    Ok(Deny { f16: has("f16"), subgroups: has("subgroups"), coopmat: has("coopmat") })
}
