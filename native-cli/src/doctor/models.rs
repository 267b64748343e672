//! Checks of models: the built-in one is compared with the reference, and the one of `--model` with itself and with the CPU.

use super::report::Item;
use crate::args::Common;
use crate::source::{Source, Tensors};
use anyhow::{Context as _, Result, bail};
use nemoflash::checkpoint::{Dtype, TensorInfo};
use nemoflash::{Config, Engine, EngineOptions, Event, Exec, Kv, LoadOptions, Piece, Sampling, Scan, Tokenizer};
use nemoflash_bench::{GOLDEN, PROMPT};
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

/// The model of `--model` gives at least this many tokens, and more until `DECODE` has passed.
const TOKENS: usize = 8;
const DECODE: Duration = Duration::from_millis(1500);
/// Allowed error of a device's logits, relative to their RMS. It is the test suite's tolerance for a device's defaults.
const LOGITS: f64 = 2e-3;
/// Models of up to this many bytes also run on the CPU.
const SMALL: u64 = 64 << 20;

/// Checks the built-in model on a device.
pub async fn fables(exec: Exec, kv: Kv, scan: Option<Scan>) -> Vec<Item> {
    let mut engine = None;
    let load = async {
        let loaded = Source::fables().load(exec, LoadOptions::default(), &mut |_, _| {}).await?;
        let bytes = loaded.model().bytes();
        let options = EngineOptions { context: 64, kv, scan, ..Default::default() };
        engine = Some(Engine::new(loaded, options).await?);
        Ok(format!("{} of weights", mib(bytes)))
    };
    let mut items = vec![Item::of("fables: load", load).await];
    let names = ["fables: decode", "fables: prefill"];
    let Some(mut engine) = engine else {
        items.extend(names.map(|name| Item::not_run(name, "the model did not load")));
        return items;
    };
    let decode = async {
        let got = greedy(&mut engine, &PROMPT, GOLDEN.len()).await?;
        same(&got, &GOLDEN[..got.len().max(TOKENS)])
    };
    items.push(Item::of(names[0], decode).await);
    let prefill = async {
        let logits = logits(&mut engine, &PROMPT, &GOLDEN).await?;
        same(&best(&logits, engine.config().vocab_size, GOLDEN.len()), &GOLDEN)
    };
    items.push(Item::of(names[1], prefill).await);
    items
}

/// Checks the model that the options name, on devices that `open` opens.
pub async fn given(common: &Common, open: &impl AsyncFn() -> Result<Exec>) -> Vec<Item> {
    let source = || Source::open(common);
    let files = async { tensors(Tensors::open(source()?)?) };
    let mut items = vec![Item::of("model: tensors", files).await];
    items.push(Item::of("model: tokenizer", async { tokenizer(&source()?.tokenizer()?) }).await);
    let mut engine = None;
    let load = async {
        let start = Instant::now();
        let loaded = load(open().await?, source()?, common).await?;
        let [least, most] = loaded.model().row_lengths.context("no weights were read")?;
        let bytes = mib(loaded.model().bytes());
        engine = Some(loaded);
        if !(least.is_finite() && most.is_finite()) {
            bail!("vocabulary rows of length {least} to {most}. Check the checkpoint");
        }
        let seconds = start.elapsed().as_secs_f64();
        Ok(format!("{bytes} of weights in {seconds:.1} s; vocabulary rows of length {least:.4} to {most:.4}"))
    };
    items.push(Item::of("model: load", load).await);
    let name = "model: answer";
    items.push(match engine {
        Some(engine) => Item::of(name, async { answer(engine, source()?, common).await }).await,
        None => Item::not_run(name, "the model did not load"),
    });
    items
}

/// The model that the options name.
async fn load(exec: Exec, source: Source, common: &Common) -> Result<Engine> {
    let loaded = source.load(exec, common.load(), &mut |_, _| {}).await?;
    let options = EngineOptions { context: 64, kv: common.kv(), scan: common.scan(), ..Default::default() };
    Ok(Engine::new(loaded, options).await?)
}

/// Asks the model for a few tokens. Its logits must be finite, and a small model on a GPU must give the same tokens as on the
/// CPU.
async fn answer(mut engine: Engine, source: Source, common: &Common) -> Result<String> {
    let vocab = engine.config().vocab_size;
    // Any tokens are good enough as a prompt. These need no tokenizer.
    let prompt: Vec<u32> = (1..=8).map(|i| i * 37 % vocab).collect();
    let tokens = greedy(&mut engine, &prompt, TOKENS).await?;
    let own = logits(&mut engine, &prompt, &tokens).await?;
    near(&own, vocab, &tokens).context("prefill and decode disagree")?;
    let said = format!("{} tokens, logits finite", tokens.len());
    if matches!(engine.exec(), Exec::Cpu(_)) {
        return Ok(said);
    }
    if engine.model().bytes() > SMALL {
        return Ok(format!("{said}; larger than {}, so not run on the CPU", mib(SMALL)));
    }
    let mut twin = load(Exec::cpu(), source, common).await?;
    near(&logits(&mut twin, &prompt, &tokens).await?, vocab, &tokens).context("GPU and CPU disagree")?;
    Ok(format!("{said}, as on the CPU"))
}

/// The most probable tokens after a prompt, step by step: `tokens` of them, or as many as there is time for.
async fn greedy(engine: &mut Engine, prompt: &[u32], tokens: usize) -> Result<Vec<u32>> {
    let (mut out, start) = (vec![], Instant::now());
    let mut keep = |event| {
        if let Event::Token(token) = event {
            out.push(token);
        }
        match out.len() >= TOKENS && start.elapsed() > DECODE {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    };
    let Some((last, before)) = prompt.split_last() else { bail!("there is no prompt") };
    engine.begin(0, &Sampling::default())?;
    // The prompt is read token by token, so that only the kernels of decode must be compiled.
    for token in before.chunks(1) {
        engine.step(&[Piece { slot: 0, tokens: token, pick: false }]).await?;
    }
    engine.generate(0, &[*last], tokens as u32, &mut keep).await?;
    Ok(out)
}

/// Logits of the steps that gave these tokens, computed all at once: a row for each token.
///
/// # Errors
/// If a logit is NaN or infinite.
async fn logits(engine: &mut Engine, prompt: &[u32], tokens: &[u32]) -> Result<Vec<f32>> {
    let Some((_, fed)) = tokens.split_last() else { bail!("no token was given") };
    engine.begin(0, &Sampling::default())?;
    let mut logits = engine.logits(0, &[prompt, fed].concat()).await?;
    let vocab = engine.config().vocab_size as usize;
    if let Some(at) = logits.iter().position(|logit| !logit.is_finite()) {
        bail!("logit {} of token {} is {}. Check the checkpoint", at % vocab, at / vocab, logits[at]);
    }
    logits.drain(..(prompt.len() - 1) * vocab);
    Ok(logits)
}

/// The most probable token of each row.
fn best(logits: &[f32], vocab: u32, rows: usize) -> Vec<u32> {
    let most = |row: &[f32]| (0..vocab).max_by(|&a, &b| row[a as usize].total_cmp(&row[b as usize]));
    logits.chunks_exact(vocab as usize).take(rows).filter_map(most).collect()
}

/// Compares tokens with the right ones.
fn same(got: &[u32], want: &[u32]) -> Result<String> {
    match (0..want.len()).find(|&i| got.get(i) != Some(&want[i])) {
        None => Ok(format!("{} tokens, as the reference says", want.len())),
        Some(i) => bail!("token {i} is {:?}, but the reference says {}", got.get(i), want[i]),
    }
}

/// Compares tokens with the logits of another run. Each token must be the most probable one there, or as probable within the
/// tolerance.
fn near(logits: &[f32], vocab: u32, tokens: &[u32]) -> Result<()> {
    let mean = logits.iter().map(|&logit| f64::from(logit).powi(2)).sum::<f64>() / logits.len() as f64;
    let slack = 2.0 * LOGITS * mean.sqrt();
    for ((i, row), &token) in logits.chunks_exact(vocab as usize).enumerate().zip(tokens) {
        let most = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let behind = f64::from(most) - f64::from(row[token as usize]);
        if behind > slack {
            bail!("token {i} is {token}, whose logit is {behind:.3} behind the largest; {slack:.3} are allowed");
        }
    }
    Ok(())
}

/// Reads every tensor on the host, and checks that all numbers are finite.
fn tensors(mut tensors: Tensors) -> Result<String> {
    let config = Config::resolve(&tensors.config, &tensors.headers)?;
    config.check(&tensors.headers)?;
    let all: Vec<(usize, u64, TensorInfo)> = tensors
        .headers
        .iter()
        .enumerate()
        .flat_map(|(file, header)| header.tensors.iter().map(move |tensor| (file, tensor)))
        .map(|(file, tensor)| (file, (tensor.end - tensor.begin) * 8 / tensor.dtype.bits(), tensor.clone()))
        .collect();
    let (mut values, mut bad) = (0, vec![]);
    for (file, len, tensor) in &all {
        let mut wrong = 0u64;
        let unit = (tensor.dtype.bits() / 8).max(1) as usize;
        tensors.read(*file, tensor.begin, tensor.end, unit, &mut |bytes| {
            wrong += not_finite(tensor.dtype, bytes);
            Ok(())
        })?;
        values += len;
        if wrong > 0 {
            bad.push(format!("{wrong} of {len} numbers of {} are NaN or infinite", tensor.name));
        }
    }
    let count = bad.len();
    bad.truncate(5);
    match count {
        0 => Ok(format!("{} tensors, {values} numbers, all finite", all.len())),
        _ => bail!("{count} of {} tensors: {}. Get the files again", all.len(), bad.join("; ")),
    }
}

/// How many numbers of a tensor are NaN or infinite: all bits of their exponent are set. Integers are always finite.
fn not_finite(dtype: Dtype, bytes: &[u8]) -> u64 {
    let halves = |mask: u16| bytes.chunks_exact(2).filter(|b| u16::from_le_bytes([b[0], b[1]]) & mask == mask).count();
    let wrong = match dtype {
        Dtype::BF16 => halves(0x7f80),
        Dtype::F16 => halves(0x7c00),
        Dtype::F32 => {
            bytes.chunks_exact(4).filter(|b| !f32::from_le_bytes([b[0], b[1], b[2], b[3]]).is_finite()).count()
        }
        _ => 0,
    };
    wrong as u64
}

/// Checks that encoding a text and decoding the ids gives the text again.
fn tokenizer(tokenizer: &Tokenizer) -> Result<String> {
    const TEXT: &str = "Once upon a time, in 1884:\n\u{201c}\u{e4}\u{201d} 火";
    let back = tokenizer.decode(&tokenizer.encode(TEXT, false)?, false);
    // Some tokenizers put a space in front.
    match back.trim_start() == TEXT {
        true => Ok(format!("{} entries", tokenizer.vocab_size())),
        false => bail!("a text comes back as {back:?}. Use the unmodified tokenizer.json of the checkpoint"),
    }
}

fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_token_is_found() {
        assert!(same(&GOLDEN, &GOLDEN).is_ok());
        let mut wrong = GOLDEN;
        wrong[31] ^= 1;
        for got in [&wrong[..], &GOLDEN[..31], &[]] {
            assert!(same(got, &GOLDEN).is_err());
        }
    }

    #[test]
    fn ties_are_no_difference() {
        // The RMS of these logits is 1, so the slack is 0.004.
        let logits = [1.0, -1.0, 0.999, 1.0];
        for (tokens, fine) in [([0, 1], true), ([0, 0], true), ([1, 1], false)] {
            assert_eq!(near(&logits, 2, &tokens).is_ok(), fine, "{tokens:?}");
        }
        assert!(near(&[0.997, 1.0], 2, &[0]).is_ok());
        assert!(near(&[0.995, 1.0], 2, &[0]).is_err());
        assert_eq!(best(&[0.997, 1.0, 3.0, 2.0], 2, 2), [1, 0]);
    }

    #[test]
    fn numbers_that_are_none_are_counted() {
        let f32s = [1.0f32, f32::NAN, f32::INFINITY, f32::MAX, -0.0];
        assert_eq!(not_finite(Dtype::F32, bytemuck::cast_slice(&f32s)), 2);
        // 1, the largest, infinite, NaN: bf16, then f16.
        assert_eq!(not_finite(Dtype::BF16, bytemuck::cast_slice(&[0x3f80u16, 0x7f7f, 0xff80, 0x7fc0])), 2);
        assert_eq!(not_finite(Dtype::F16, bytemuck::cast_slice(&[0x3c00u16, 0x7bff, 0xfc00, 0x7e00])), 2);
        assert_eq!(not_finite(Dtype::U32, &[0xff; 8]), 0);
    }
}
