//! `nemoflash explain`: how a model runs here.

use crate::args::Common;
use crate::report::Exit;
use crate::{open, terminal};
use anyhow::Result;

/// Runs the command.
///
/// # Errors
/// See [`open`].
pub async fn run(common: &Common) -> Result<Exit> {
    let opened = open::without_tokenizer(common).await?;
    let (weights, arena, scratch) = opened.engine.device_bytes();
    terminal::print(&format!("{weights} {arena} {scratch}\n"))?;
    Ok(Exit::Done)
}
