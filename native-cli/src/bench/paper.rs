//! `nemoflash bench paper`: repeats table 6 of arXiv 2511.18890 on this device (spec 7.1).

use super::measure::{Ready, ready};
use super::options::Bench;
use super::row::{About, unread};
use crate::arch::arch;
use crate::args::Common;
use crate::open::{self, Opened};
use crate::terminal;
use anyhow::{Result, anyhow};
use nemoflash::{Caps, Engine, EngineOptions, Error, Exec, Loaded};
use nemoflash_bench::report::{Kind, Model, Row, Test};
use nemoflash_bench::{Measured, buffer_bytes, measure};
use std::ops::ControlFlow;

/// The shapes that are measured, with the numbers that the paper publishes for an H100: name, seconds for 8,192 tokens, and
/// tokens per second of many sequences. Each Nemotron-Flash is followed by the model that the paper compares it with.
const PUBLISHED: [(&str, f64, f64); 4] = [
    ("nemotron-flash-1b", 14.45, 7289.0),
    ("qwen3-0.6b", 27.55, 160.0),
    ("nemotron-flash-3b", 28.71, 2939.0),
    ("qwen3-1.7b", 36.2, 157.0),
];
/// Tokens whose latency is measured.
const TOKENS: u32 = 8192;
/// Depth at which throughput is measured: tokens in front of the decoded ones in each sequence.
const DEPTH: u32 = 32_768;
/// Tokens that each sequence decodes when throughput is measured.
const STEPS: u32 = 32;
/// Most sequences on a GPU with memory of its own.
const MOST: u32 = 512;
/// Most sequences where other programs share the memory: on the CPU, on a GPU in software, and on a GPU without memory of its
/// own.
const MOST_SHARED: u32 = 8;

/// Measures latency and throughput of each shape, or of the one that `--arch` names, until Ctrl-C.
///
/// # Errors
/// If the device cannot be used, or a row cannot be written. If a test fails, its row says so.
pub async fn rows(
    common: &Common,
    bench: &Bench,
    stopped: &dyn Fn() -> bool,
    write: &mut dyn FnMut(Row) -> Result<()>,
) -> Result<()> {
    let first = |list: &Option<Vec<u32>>| list.as_ref().and_then(|list| list.first().copied());
    let (tokens, depth, batch) = (first(&bench.n_gen), first(&bench.n_depth), first(&bench.batch));
    let depth = depth.unwrap_or(DEPTH);
    let ready = ready(common, bench).await?;
    let shapes = match &common.arch {
        Some(shape) => vec![shape.clone()],
        None => PUBLISHED.iter().map(|(name, ..)| arch(name).map_err(|why| anyhow!(why))).collect::<Result<_>>()?,
    };
    for shape in shapes {
        let common = Common { arch: Some(shape), ..ready.common.clone() };
        let alone = Test::new(Kind::Decode, 0, tokens.unwrap_or(TOKENS), 0, 1);
        let opened = open::with_slots(&common, 1, Some(alone.tokens + 1)).await;
        row(&ready, &common, alone, opened, stopped, write).await?;
        if stopped() {
            return Ok(());
        }
        let opened = fullest(&common, depth + STEPS + 1, batch).await;
        let slots = opened.as_ref().map_or(1, |opened| opened.engine.options().slots);
        let together = Test::new(Kind::Decode, 0, tokens.map_or(STEPS, |tokens| tokens.min(STEPS)), depth, slots);
        row(&ready, &common, together, opened, stopped, write).await?;
        if stopped() {
            return Ok(());
        }
    }
    Ok(())
}

async fn row(
    ready: &Ready,
    common: &Common,
    test: Test,
    opened: Result<Opened>,
    stopped: &dyn Fn() -> bool,
    write: &mut dyn FnMut(Row) -> Result<()>,
) -> Result<()> {
    let Ready { device, gate, warnings, settings, adapter, .. } = ready;
    let about = |model| About { gate: *gate, warnings: warnings.clone(), ..About::new(device.clone(), model) };
    let name = common.arch.as_ref().map_or("", |shape| &shape.name);
    let mut opened = match opened {
        Ok(opened) => opened,
        Err(error) => return write(about(unread(name, common)).failed(&test, format!("{error:#}"))),
    };
    terminal::note_if_watched(&format!("{name}: {} on {adapter} ...", test.name));
    let about = about(Model::new(&opened.engine, name, true));
    let mut go = |_| if stopped() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
    match measure(&mut opened.engine, &test, settings, &mut go).await {
        Ok(Some(Measured { time, operators })) => write(Row { operators, ..about.row(&test, time) }),
        Ok(None) => Ok(()),
        Err(error) => write(about.failed(&test, error.to_string())),
    }
}

/// An engine with the wanted number of sequences, or with as many as fit.
async fn fullest(common: &Common, context: u32, wanted: Option<u32>) -> Result<Opened> {
    let mut slots = match wanted {
        Some(slots) => return open::with_slots(common, slots, Some(context)).await,
        None => most(common, context).await?,
    };
    loop {
        match open::with_slots(common, slots, Some(context)).await {
            // Free memory may be fragmented, so fewer sequences may fit than its size promises.
            Err(error) if slots > 1 && error.downcast_ref().is_some_and(is_full) => slots = (slots * 15 / 16).max(1),
            result => return result,
        }
    }
}

fn is_full(error: &Error) -> bool {
    matches!(error, Error::OutOfMemory { .. } | Error::Limit { .. })
}

/// How many sequences the device's limits and its memory allow.
async fn most(common: &Common, context: u32) -> Result<u32> {
    let (mut exec, _) = open::device(common).await?;
    let config = common.arch.as_ref().map_or(&[][..], |shape| &shape.config);
    let options = common.load();
    // Bytes of an engine with `slots` sequences, and of one more: the sequence that all others are copied from.
    let bytes = async |caps: &Caps, slots| {
        let dry = Loaded::dry_run(caps, config, &[], options).await?;
        let options = EngineOptions { slots, context, kv: common.kv(), scan: common.scan(), ..Default::default() };
        match Engine::new(dry, options).await {
            Ok(engine) => {
                let (weights, arena, scratch) = engine.device_bytes();
                Ok(weights + arena + scratch + arena / u64::from(slots))
            }
            Err(error) if is_full(&error) => Ok(u64::MAX),
            Err(error) => Err(error),
        }
    };
    let caps = exec.caps().clone();
    let (most, memory) = match &mut exec {
        Exec::Gpu(gpu) if gpu.info().kind == "discrete" => {
            (MOST, buffer_bytes(&mut exec, bytes(&caps, MOST).await?).await?)
        }
        _ => (MOST_SHARED, u64::MAX - 1),
    };
    let (mut fits, mut too_many) = (1, most + 1);
    while fits + 1 < too_many {
        let slots = fits.midpoint(too_many);
        if bytes(&caps, slots).await? <= memory { fits = slots } else { too_many = slots }
    }
    Ok(fits)
}

/// The table of measured beside published numbers. Empty if no published shape was measured.
pub fn table(rows: &[Row]) -> String {
    if !rows.iter().any(|row| PUBLISHED.iter().any(|(name, ..)| *name == row.model.name)) {
        return String::new();
    }
    let find = |name: &str, deep: bool| {
        let fits = |row: &&Row| row.model.name == name && (row.test.depth > 0) == deep && row.error.is_none();
        rows.iter().find(fits)
    };
    let latency = |name| find(name, false).and_then(|row| Some(row.time.seconds?.median));
    let throughput = |name| find(name, true).and_then(|row| Some((row.time.tokens_per_second?.median, row.test.batch)));
    let shown = |value: Option<f64>| value.map_or("-".into(), |value| format!("{value:.2}"));
    let mut text = String::from(
        "\n| model | latency, s | published, s | throughput, tokens/s | sequences | published, tokens/s |\n\
         | ----- | ---------: | -----------: | -------------------: | --------: | ------------------: |\n",
    );
    for (name, seconds, rate) in PUBLISHED {
        let (measured, batch) = match throughput(name) {
            Some((rate, batch)) => (format!("{rate:.0}"), batch.to_string()),
            None => ("-".into(), "-".into()),
        };
        text += &format!("| {name} | {} | {seconds:.2} | {measured} | {batch} | {rate:.0} |\n", shown(latency(name)));
    }
    text.push('\n');
    for pair in PUBLISHED.chunks(2) {
        let [(ours, seconds, rate), (theirs, other_seconds, other_rate)] = *pair else { continue };
        let ratio = |a: Option<f64>, b: Option<f64>| shown(a.zip(b).map(|(a, b)| a / b));
        let rates = [ours, theirs].map(|name| throughput(name).map(|(rate, _)| rate));
        text += &format!(
            "{ours} against {theirs}: latency {} times lower (published {:.2}), throughput {} times higher (published {:.2})\n",
            ratio(latency(theirs), latency(ours)),
            other_seconds / seconds,
            ratio(rates[0], rates[1]),
            rate / other_rate
        );
    }
    text + "Published: one H100, batch 1 with CUDA graphs; throughput at the largest batch behind 32k tokens. Here: random weights.\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::row::tests::row;
    use nemoflash_bench::report::Time;

    fn rows(name: &str, latency: f64, step: f64, batch: u32) -> [Row; 2] {
        let of = |test: Test, seconds| {
            let mut made = row();
            made.model.name = name.into();
            Row { time: Time::wall(&test, vec![seconds; 3], vec![]), test, ..made }
        };
        let together = Test::new(Kind::Decode, 0, STEPS, DEPTH, batch);
        [of(Test::new(Kind::Decode, 0, TOKENS, 0, 1), latency), of(together, f64::from(STEPS) * step)]
    }

    #[test]
    fn ratios_stand_beside_the_published_ones() {
        let both = [rows("nemotron-flash-1b", 8.0, 0.01, 64), rows("qwen3-0.6b", 10.0, 0.02, 2)].concat();
        let text = table(&both);
        for line in [
            "| nemotron-flash-1b | 8.00 | 14.45 | 6400 | 64 | 7289 |",
            "| qwen3-1.7b | - | 36.20 | - | - | 157 |",
            "nemotron-flash-1b against qwen3-0.6b: latency 1.25 times lower (published 1.91), throughput 64.00 times higher \
             (published 45.56)",
            "nemotron-flash-3b against qwen3-1.7b: latency - times lower (published 1.26)",
        ] {
            assert!(text.contains(line), "`{line}` is not in:\n{text}");
        }
        assert_eq!(table(&rows("small", 1.0, 1.0, 1)), "");
    }
}
