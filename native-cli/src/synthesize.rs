//! `nemoflash synthesize`: writes a folder of random weights with the shape of `--arch`.

use crate::args::{Common, Synthesize};
use crate::folder::{Entry, Folder};
use crate::report::{Exit, Usage};
use crate::terminal;
use anyhow::Result;
use nemoflash::checkpoint::Dtype;
use nemoflash::{Config, Synthetic, tokenizer_json};

/// 32-bit words that are made at a time. Each holds two bf16 numbers.
const PIECE: usize = 1 << 20;

/// Runs the command.
///
/// # Errors
/// If `--arch` is missing, or the folder cannot be written.
pub fn run(common: &Common, args: &Synthesize) -> Result<Exit> {
    let Some(shape) = &common.arch else {
        return Err(Usage(
            "--arch is missing. Write for example `nemoflash synthesize --arch nemotron-flash-1b OUT`".into(),
        )
        .into());
    };
    let config = Config::parse(&shape.config)?;
    let folder = Folder::create(&args.out, None)?;
    let tensors = config.tensors();
    let written: Vec<_> =
        tensors.iter().map(|t| Entry { name: t.name.clone(), dtype: Dtype::BF16, shape: t.shape.clone() }).collect();
    let bar = terminal::bar("writing", 2 * tensors.iter().map(|t| t.len()).sum::<u64>(), true);
    let mut words = vec![0u32; PIECE];
    folder.tensors(&written, &mut |i, file| {
        let len = tensors[i].len();
        let mut first = 0;
        while 2 * first < len {
            let numbers = (len - 2 * first).min(2 * PIECE as u64) as usize;
            let words = &mut words[..numbers.div_ceil(2)];
            Synthetic { seed: 0 }.words(&tensors[i], first, words);
            words.iter_mut().for_each(|word| *word = word.to_le());
            file.write_all(&bytemuck::cast_slice(words)[..2 * numbers])?;
            first += words.len() as u64;
            bar.inc(2 * numbers as u64);
        }
        Ok(())
    })?;
    bar.finish_and_clear();
    folder.file("config.json", &shape.config)?;
    folder.file("tokenizer.json", &tokenizer_json(config.vocab_size))?;
    folder.finish()?;
    terminal::note(&format!(
        "wrote {}: random weights with the shape of {}, {} tensors",
        args.out.display(),
        shape.given,
        tensors.len()
    ));
    Ok(Exit::Done)
}
