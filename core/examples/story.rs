//! Opens a model's folder and streams a story: `cargo run --release --example story [FOLDER]`.

use nemoflash::{ChatOptions, Exec, Generator, Result};
use std::fs::File;
use std::path::{Path, PathBuf};

/// Writes a story to `show`, piece by piece.
pub async fn story(folder: &Path, options: &ChatOptions, show: impl FnMut(&str)) -> Result<()> {
    let mut model = Generator::open(Exec::cpu(), |name| File::open(folder.join(name))).await?;
    model.generate("Once upon a time", options, show).await?;
    Ok(())
}

#[allow(dead_code, reason = "a test calls the story alone")]
fn main() -> Result<()> {
    let folder = std::env::args().nth(1).map_or_else(|| nemoflash_fables::FOLDER.into(), PathBuf::from);
    let options = ChatOptions { seed: 7, ..Default::default() };
    pollster::block_on(story(&folder, &options, |text| print!("{text}")))?;
    println!();
    Ok(())
}
