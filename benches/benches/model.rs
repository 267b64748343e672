//! `cargo bench -p nemoflash-benches --bench model -- [--arch NAME] [--weights bf16|q8|q4] [--depth LIST] [--batch LIST]
//! [--json]`: a published shape with random weights from end to end on one GPU: prefill, decode at each depth, decode of
//! many sequences at a time, and where the time of a step goes by kernel. `cargo test` runs nothing of it but its arguments.
#![forbid(unsafe_code)]

use anyhow::{Context as _, bail};
use clap::Parser;
use nemoflash::batch::MAX_ROWS;
use nemoflash::{
    ARCHS, Deny, Dispatch, Engine, EngineOptions, Event, Exec, Gpu, GpuOptions, LoadOptions, Piece, Quant, Sampling,
    Scan, Synthetic,
};
use pollster::block_on;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::time::Instant;

/// Times a published shape with random weights.
#[derive(Parser, Debug)]
#[command(name = "model")]
struct Options {
    /// nemotron-flash-1b, nemotron-flash-3b, qwen3-0.6b or qwen3-1.7b
    #[arg(long, default_value = "nemotron-flash-1b")]
    arch: String,
    /// bf16, q8 or q4
    #[arg(long, default_value = "bf16")]
    weights: String,
    /// An adapter's index, or a part of its name
    #[arg(long)]
    adapter: Option<String>,
    /// Features not to use: f16, subgroups, coopmat
    #[arg(long, value_delimiter = ',')]
    deny: Vec<String>,
    /// Tokens in front of the decoded ones
    #[arg(long, value_delimiter = ',', default_value = "0")]
    depth: Vec<u32>,
    /// Tokens decoded in a run
    #[arg(long, default_value_t = 128)]
    tokens: u32,
    /// Prompts whose prefill is timed
    #[arg(long, value_delimiter = ',', default_value = "512")]
    prompt: Vec<u32>,
    /// serial or chunked scans in prefill
    #[arg(long, default_value = "serial")]
    scan: String,
    /// Sequences decoded at a time, at the largest depth
    #[arg(long, value_delimiter = ',')]
    batch: Vec<u32>,
    /// Runs; the median counts
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Steps of the profile; 0 for none
    #[arg(long, default_value_t = 8)]
    profile: usize,
    /// One JSON object on stdout instead of a table
    #[arg(long)]
    json: bool,
    /// Given by `cargo bench`
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> anyhow::Result<()> {
    if !std::env::args().any(|argument| argument == "--bench") {
        return Ok(());
    }
    let options = Options::parse();
    let rows = block_on(measure(&options))?;
    if options.json {
        println!("{rows:#}");
    } else {
        table(&rows);
    }
    Ok(())
}

async fn measure(options: &Options) -> anyhow::Result<Value> {
    let deny = |name: &str| options.deny.iter().any(|denied| denied == name);
    let gpu = Gpu::new(&GpuOptions {
        adapter: options.adapter.clone(),
        deny: Deny { f16: deny("f16"), subgroups: deny("subgroups"), coopmat: deny("coopmat") },
        ..Default::default()
    })
    .await?;
    let adapter = gpu.info().name.clone();
    let mut exec = Exec::Gpu(Box::new(gpu));
    let (_, config) = ARCHS.iter().find(|(name, _)| *name == options.arch).context("no such --arch")?;
    let bits = match options.weights.as_str() {
        "bf16" => None,
        "q8" => Some(8),
        "q4" => Some(4),
        other => bail!("--weights: `{other}` is not one of bf16, q8, q4"),
    };
    let load =
        LoadOptions { quantise: bits.map(|bits| Quant { bits, group: 64, scale_f16: false }), ..Default::default() };
    let model = Synthetic { seed: 0 }.model(&mut exec, config.as_bytes(), load).await?;
    let most = options.depth.iter().max().copied().unwrap_or(0).max(*options.prompt.iter().max().unwrap_or(&0));
    let context = most + options.tokens + 1;
    let slots = options.batch.iter().max().copied().unwrap_or(1);
    let scan = match options.scan.as_str() {
        "serial" => Scan::Serial,
        "chunked" => Scan::Chunked,
        other => bail!("--scan: `{other}` is not one of serial, chunked"),
    };
    let mut engine = Engine::new(exec, model, EngineOptions { context, slots, scan, ..Default::default() }).await?;
    let mut prefill = vec![];
    for &prompt in &options.prompt {
        let ids = ids(&engine, prompt);
        let mut samples = vec![];
        for _ in 0..=options.runs {
            engine.begin(0, &Sampling::default())?;
            let begin = Instant::now();
            engine.generate(0, &ids, 1, &mut |_| ControlFlow::Continue(())).await?;
            samples.push(begin.elapsed().as_secs_f64());
        }
        // The first compiles and warms up.
        let seconds = median(&mut samples[1..]);
        let last = ids.len().saturating_sub(MAX_ROWS);
        let kernels = profile(&mut engine, &ids[..last], &ids[last..], options.profile).await?;
        prefill.push(json!({
            "tokens": prompt, "seconds": seconds, "tokens_per_second": f64::from(prompt) / seconds,
            "samples": samples[1..].to_vec(), "kernels": kernels,
        }));
    }
    let mut decode = vec![];
    for &depth in &options.depth {
        let ids = ids(&engine, depth.max(1));
        let mut samples = vec![];
        for _ in 0..=options.runs {
            engine.begin(0, &Sampling::default())?;
            let (mut first, mut last) = (None, None);
            let mut on_event = |event| {
                if let Event::Token(_) = event {
                    last = Some(Instant::now());
                    first = first.or(last);
                }
                ControlFlow::Continue(())
            };
            engine.generate(0, &ids, options.tokens + 1, &mut on_event).await?;
            let (first, last) = first.zip(last).context("no token came")?;
            samples.push((last - first).as_secs_f64() / f64::from(options.tokens));
        }
        let kernels = profile(&mut engine, &ids, &[1], options.profile).await?;
        let seconds = median(&mut samples[1..]);
        decode.push(json!({
            "depth": depth, "milliseconds": seconds * 1e3, "tokens_per_second": 1.0 / seconds,
            "samples": samples[1..].to_vec(), "kernels": kernels,
        }));
    }
    let mut batches = vec![];
    for &batch in &options.batch {
        batches.push(throughput(&mut engine, batch, most, options).await?);
    }
    let explain = engine.explain();
    Ok(json!({
        "adapter": adapter, "arch": options.arch, "weights": options.weights,
        "dispatches_per_token": explain.dispatches_per_token, "bytes_per_token": explain.bytes_per_token,
        "prefill": prefill, "decode": decode, "batches": batches,
    }))
}

/// Tokens per second of `batch` sequences of `depth` tokens, one step after another.
async fn throughput(engine: &mut Engine, batch: u32, depth: u32, options: &Options) -> anyhow::Result<Value> {
    let ids = ids(engine, depth.max(1));
    engine.begin(0, &Sampling::default())?;
    for tokens in ids.chunks(MAX_ROWS) {
        engine.step(&[Piece { slot: 0, tokens, pick: false }]).await?;
    }
    let snapshot = engine.snapshot(0).await?;
    let mut samples = vec![];
    for run in 0..=options.runs {
        for slot in 0..batch {
            engine.begin(slot, &Sampling::default())?;
            engine.restore(slot, &snapshot)?;
        }
        let mut tokens: Vec<u32> = (1..=batch).collect();
        let mut begin = Instant::now();
        for step in 0..=options.tokens {
            let pieces = tokens.iter().zip(0..);
            let pieces: Vec<_> =
                pieces.map(|(token, slot)| Piece { slot, tokens: std::slice::from_ref(token), pick: true }).collect();
            tokens = engine.step(&pieces).await?.into_iter().flatten().collect();
            if step == 0 {
                // The first one waits for the copies.
                begin = Instant::now();
            }
        }
        if run > 0 {
            samples.push(begin.elapsed().as_secs_f64() / f64::from(options.tokens));
        }
    }
    engine.release(snapshot);
    let seconds = median(&mut samples);
    Ok(json!({
        "batch": batch, "depth": depth, "milliseconds": seconds * 1e3, "tokens_per_second": f64::from(batch) / seconds,
        "samples": samples,
    }))
}

fn ids(engine: &Engine, count: u32) -> Vec<u32> {
    (1..=count).map(|i| i.wrapping_mul(2_654_435_761) % engine.config().vocab_size).collect()
}

fn median(samples: &mut [f64]) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples[samples.len() / 2]
}

/// Mean seconds of each operator of a step over `tokens` behind `ids`, those with the same numbers together.
async fn profile(engine: &mut Engine, ids: &[u32], tokens: &[u32], steps: usize) -> anyhow::Result<Vec<Value>> {
    if steps == 0 {
        return Ok(vec![]);
    }
    engine.begin(0, &Sampling::default())?;
    for tokens in ids.chunks(MAX_ROWS) {
        engine.step(&[Piece { slot: 0, tokens, pick: false }]).await?;
    }
    let mut sums: BTreeMap<(&str, String), (usize, f64, u64, &str)> = BTreeMap::new();
    for i in 0..=steps {
        for Dispatch { part, kernel, op, bytes, seconds } in engine.profile(0, tokens).await? {
            if i > 0 {
                let sum = sums.entry((kernel, op)).or_insert((0, 0.0, 0, part));
                *sum = (sum.0 + 1, sum.1 + seconds, sum.2 + bytes, part);
            }
        }
    }
    let steps = steps as f64;
    let mut rows: Vec<_> = sums.into_iter().collect();
    rows.sort_by(|a, b| b.1.1.total_cmp(&a.1.1));
    let row = |((kernel, op), (count, seconds, bytes, part)): ((&str, String), (usize, f64, u64, &str))| {
        json!({
            "kernel": kernel, "part": part, "op": op, "dispatches": count as f64 / steps,
            "microseconds": seconds / steps * 1e6, "microseconds_each": seconds / count as f64 * 1e6,
            "gigabytes_per_second": bytes as f64 / seconds / 1e9,
        })
    };
    Ok(rows.into_iter().map(row).collect())
}

fn table(rows: &Value) {
    println!("{} {} on {}", rows["arch"], rows["weights"], rows["adapter"]);
    println!("{} dispatches, {} bytes a token", rows["dispatches_per_token"], rows["bytes_per_token"]);
    let number = |value: &Value| value.as_f64().unwrap_or(f64::NAN);
    let list = |name: &str| rows[name].as_array().cloned().unwrap_or_default();
    for row in list("prefill") {
        println!("prefill {:>6} tokens: {:>10.1} tokens/s", row["tokens"], number(&row["tokens_per_second"]));
        kernels(&row);
    }
    for row in list("decode") {
        let (ms, rate) = (number(&row["milliseconds"]), number(&row["tokens_per_second"]));
        println!("decode at depth {:>6}: {ms:.4} ms/token, {rate:.1} tokens/s", row["depth"]);
        kernels(&row);
    }
    for row in list("batches") {
        let (ms, rate) = (number(&row["milliseconds"]), number(&row["tokens_per_second"]));
        println!("{} sequences at depth {:>6}: {ms:.4} ms/step, {rate:.1} tokens/s", row["batch"], row["depth"]);
    }
}

fn kernels(row: &Value) {
    let number = |value: &Value| value.as_f64().unwrap_or(f64::NAN);
    for kernel in row["kernels"].as_array().into_iter().flatten() {
        println!(
            "  {:<16} {:<10} {:>4} x {:>7.2} µs = {:>8.1} µs  {:>7.0} GB/s  {}",
            kernel["kernel"].as_str().unwrap_or_default(),
            kernel["part"].as_str().unwrap_or_default(),
            number(&kernel["dispatches"]),
            number(&kernel["microseconds_each"]),
            number(&kernel["microseconds"]),
            number(&kernel["gigabytes_per_second"]),
            kernel["op"].as_str().unwrap_or_default(),
        );
    }
}
