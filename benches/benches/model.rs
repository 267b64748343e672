//! `cargo bench -p nemoflash-bench --bench model -- [--arch NAME] [--weights bf16|q8|q4] [--depth LIST] [--batch LIST]
//! [--json]`: a published shape with random weights from end to end on one GPU: prefill, decode at each depth, decode of
//! many sequences at a time, and where the time of a step goes by kernel. `cargo test` runs nothing of it but its arguments.
#![forbid(unsafe_code)]

mod common;

use anyhow::Context as _;
use clap::Parser;
use common::{deny, scan, seconds, weights};
use nemoflash::{ARCHS, Engine, EngineOptions, Exec, Gpu, GpuOptions, Synthetic};
use nemoflash_bench::report::{Kind, Operator, Test, Time};
use nemoflash_bench::{Settings, operators, time};
use pollster::block_on;
use serde_json::{Value, json};
use std::ops::ControlFlow;

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
    /// serial or chunked scans in prefill [default: what the engine chooses]
    #[arg(long)]
    scan: Option<String>,
    /// Sequences decoded at a time, at the largest depth
    #[arg(long, value_delimiter = ',')]
    batch: Vec<u32>,
    /// Runs; the median counts
    #[arg(long, default_value_t = 5)]
    runs: u32,
    /// Steps of the profile; 0 for none
    #[arg(long, default_value_t = 8)]
    profile: u32,
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
    let gpu =
        Gpu::new(&GpuOptions { adapter: options.adapter.clone(), deny: deny(&options.deny)?, ..Default::default() })
            .await?;
    let adapter = gpu.info().name.clone();
    let exec = Exec::Gpu(Box::new(gpu));
    let (_, config) = ARCHS.iter().find(|(name, _)| *name == options.arch).context("no such --arch")?;
    let load = weights(&options.weights)?;
    let loaded = Synthetic { seed: 0 }.model(exec, config.as_bytes(), load).await?;
    let most = options.depth.iter().max().copied().unwrap_or(0).max(*options.prompt.iter().max().unwrap_or(&0));
    let context = most + options.tokens + 1;
    let slots = options.batch.iter().max().copied().unwrap_or(1);
    let scan = scan(options.scan.as_deref())?;
    let mut engine = Engine::new(loaded, EngineOptions { context, slots, scan, ..Default::default() }).await?;
    let Options { runs, profile, .. } = *options;
    let settings = Settings { runs, warm_up: 1, profile, steady: None, bandwidth: None, clock: seconds };
    let mut prefill = vec![];
    for &prompt in &options.prompt {
        let (time, kernels) = row(&mut engine, &Test::new(Kind::Prefill, prompt, 0, 0, 1), &settings).await?;
        prefill.push(json!({
            "tokens": prompt, "seconds": time.seconds.map(|s| s.median),
            "tokens_per_second": time.tokens_per_second.map(|rate| rate.median),
            "samples": time.samples, "kernels": kernels,
        }));
    }
    let (mut decode, mut batches) = (vec![], vec![]);
    let alone = options.depth.iter().map(|&depth| (depth, 1));
    for (depth, batch) in alone.chain(options.batch.iter().map(|&batch| (most, batch))) {
        let test = Test::new(Kind::Decode, 0, options.tokens, depth, batch);
        let (time, kernels) = row(&mut engine, &test, &settings).await?;
        let each = |seconds: f64| seconds / f64::from(options.tokens);
        let row = json!({
            "depth": depth, "batch": batch, "milliseconds": time.seconds.map(|s| each(s.median) * 1e3),
            "tokens_per_second": time.tokens_per_second.map(|rate| rate.median),
            "samples": time.samples.iter().map(|&s| each(s)).collect::<Vec<_>>(), "kernels": kernels,
        });
        if decode.len() < options.depth.len() { decode.push(row) } else { batches.push(row) }
    }
    let explain = engine.explain();
    Ok(json!({
        "adapter": adapter, "arch": options.arch, "weights": options.weights,
        "dispatches_per_token": explain.dispatches_per_token, "bytes_per_token": explain.bytes_per_token,
        "prefill": prefill, "decode": decode, "batches": batches,
    }))
}

/// What a test takes, and its kernels.
async fn row(engine: &mut Engine, test: &Test, settings: &Settings) -> anyhow::Result<(Time, Vec<Value>)> {
    let (mut go, ended) = (|_| ControlFlow::Continue(()), "nobody ended it");
    let time = time(engine, test, settings, &mut go).await?.context(ended)?;
    let operators = operators(engine, test, settings, &mut go).await?.context(ended)?;
    let kernel = |Operator { part, kernel, op, dispatches, seconds, bytes }: Operator| {
        json!({
            "kernel": kernel, "part": part, "op": op, "dispatches": dispatches,
            "microseconds": seconds * 1e6, "microseconds_each": seconds / f64::from(dispatches) * 1e6,
            "gigabytes_per_second": bytes as f64 / seconds / 1e9,
        })
    };
    Ok((time, operators.into_iter().map(kernel).collect()))
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
