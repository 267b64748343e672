//! A conversation, one line a turn: `cargo run --release --example chat [FOLDER]`.

use nemoflash::{ChatOptions, Exec, Generator, Result};
use std::fs::File;
use std::io::BufRead;
use std::path::{Path, PathBuf};

/// Answers each line of `input` to `show`, piece by piece. Each turn reads only what is new.
pub async fn chat(folder: &Path, options: &ChatOptions, input: impl BufRead, mut show: impl FnMut(&str)) -> Result<()> {
    let mut model = Generator::open(Exec::cpu(), |name| File::open(folder.join(name))).await?;
    for line in input.lines().map_while(std::result::Result::ok) {
        model.chat(&line, options, &mut show).await?;
        show("\n");
    }
    Ok(())
}

#[allow(dead_code, reason = "a test calls the conversation alone")]
fn main() -> Result<()> {
    let folder = std::env::args().nth(1).map_or_else(|| nemoflash_fables::FOLDER.into(), PathBuf::from);
    pollster::block_on(chat(&folder, &ChatOptions::default(), std::io::stdin().lock(), |text| print!("{text}")))
}
