//! `cargo bench -p nemoflash-bench --bench operators -- [--adapter TEXT|INDEX] [--deny LIST] [--filter TEXT] [--json]`:
//! every operator on its example sizes; with `--arch nemotron-flash-1b --rows 1,8,64 --prompt 512`, every operator of that
//! model's steps in its sizes, with its share of what its memory gives and, given `--tflops`, of what it computes. `cargo
//! test` runs each example once instead: the first of each kernel on whatever adapter there is, the others on the CPU.
#![forbid(unsafe_code)]

mod common;

use anyhow::Context as _;
use clap::Parser;
use common::{deny, scan, seconds, weights};
use nemoflash::ops::examples;
use nemoflash::{ARCHS, Caps, Error, Exec, Gpu, GpuOptions};
use nemoflash_bench::kernels::{Effort, Timing, Work, time, work};
use nemoflash_bench::memory_bytes_per_second;
use serde_json::json;
use std::collections::BTreeSet;

/// Times every operator on its example sizes.
#[derive(Parser, Debug, Default)]
#[command(name = "operators")]
struct Options {
    /// An adapter's index, or a part of its name
    #[arg(long)]
    adapter: Option<String>,
    /// vulkan, metal, dx12 or gl
    #[arg(long)]
    backend: Option<String>,
    /// Features not to use: f16, subgroups, coopmat
    #[arg(long, value_delimiter = ',')]
    deny: Vec<String>,
    /// Only kernels whose name contains this
    #[arg(long)]
    filter: Option<String>,
    /// One JSON object on stdout instead of a table
    #[arg(long)]
    json: bool,
    /// Not the examples but what a step of this published shape runs
    #[arg(long)]
    arch: Option<String>,
    /// The shape's weights: bf16, q8 or q4
    #[arg(long, default_value = "bf16")]
    weights: String,
    /// Sequences of a decode step of the shape
    #[arg(long, value_delimiter = ',', default_value = "1")]
    rows: Vec<u32>,
    /// Tokens of a prefill step of the shape
    #[arg(long, value_delimiter = ',')]
    prompt: Vec<u32>,
    /// Tokens in front of those
    #[arg(long, default_value_t = 0)]
    depth: u32,
    /// serial or chunked scans in prefill steps of the shape [default: what the engine chooses]
    #[arg(long)]
    scan: Option<String>,
    /// TFLOP/s of the device by its data sheet
    #[arg(long)]
    tflops: Option<f64>,
    /// Runs per example; the median counts
    #[arg(long, default_value_t = 9)]
    runs: usize,
    /// Milliseconds of work before the runs of each example
    #[arg(long, default_value_t = 200.0)]
    warm_up: f64,
    /// The least milliseconds of one run
    #[arg(long, default_value_t = 5.0)]
    run: f64,
    /// Given by `cargo bench`
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> anyhow::Result<()> {
    // `cargo test` gives no `--bench`, and arguments meant for other programs.
    let measure = std::env::args().any(|argument| argument == "--bench");
    let options = if measure { Options::parse() } else { Options::default() };
    let effort = match measure {
        false => Effort::ONCE,
        true => Effort { warm_up: options.warm_up / 1e3, run: options.run / 1e3, runs: options.runs.max(1) },
    };
    let gpu = pollster::block_on(Gpu::new(&GpuOptions {
        backend: options.backend.clone(),
        adapter: options.adapter.clone(),
        deny: deny(&options.deny)?,
        ..Default::default()
    }));
    let gpu = match gpu {
        Ok(gpu) => gpu,
        Err(Error::NoAdapter { why, .. }) if !measure => {
            eprintln!("not run: benches: no adapter ({why})");
            return Ok(());
        }
        Err(e) => return Err(e.into()),
    };
    let device = describe(&gpu);
    let mut exec = Exec::Gpu(Box::new(gpu));
    let bandwidth = match options.arch {
        Some(_) => pollster::block_on(memory_bytes_per_second(&mut exec, seconds))?,
        None => None,
    };
    let most = Most { bandwidth, flops: options.tflops.map(|most| most * 1e12) };
    let mut results = vec![];
    if measure && !options.json {
        println!("{device:#}");
        if let Some(bandwidth) = bandwidth {
            println!("memory {:.0} GB/s", bandwidth / 1e9);
        }
        println!(
            "{:<18} {:>5} {:>5} {:>10} {:>6} {:>8} {:>6} {:>8} {:>6}  operator",
            "kernel", "rows", "times", "µs", "±%", "GB/s", "%", "TFLOP/s", "%"
        );
    }
    // A GPU in software takes minutes to compile all examples, and `tests/tests/ops.rs` runs and checks all of them there.
    let (mut cpu, mut seen) = (Exec::cpu(), BTreeSet::new());
    for Work { ops, batch, dispatches } in list(&options, exec.caps())? {
        if !ops[0].kernel().name.contains(options.filter.as_deref().unwrap_or_default()) {
            continue;
        }
        let first = seen.insert(ops[0].kernel().name);
        let exec = if measure || first { &mut exec } else { &mut cpu };
        match pollster::block_on(time(exec, ops, &batch, effort, seconds)) {
            Ok(timing) => {
                if measure && !options.json {
                    println!("{}", line(&timing, dispatches, &most));
                }
                results.push((timing, dispatches));
            }
            // A buffer that this device cannot bind is no fault of the operator.
            Err(e @ Error::Limit { .. }) => eprintln!("skipped: {e}"),
            Err(e) => return Err(e.into()),
        }
    }
    match (measure, options.json) {
        (true, true) => {
            let results: Vec<_> = results.iter().map(|(timing, times)| object(timing, *times, &most)).collect();
            println!("{:#}", json!({ "device": device, "memory_bytes_per_second": bandwidth, "results": results }))
        }
        (true, false) => {}
        (false, _) => println!("{} examples run", results.len()),
    }
    Ok(())
}

/// What is to be timed: the examples, or the steps of a model.
fn list(options: &Options, caps: &Caps) -> anyhow::Result<Vec<Work>> {
    let Some(arch) = &options.arch else {
        let example = |case: nemoflash::ops::Case| Work { ops: vec![case.op], batch: case.batch, dispatches: 1 };
        return Ok(examples().into_iter().filter(|case| case.runs_on(caps)).map(example).collect());
    };
    let (_, config) = ARCHS.iter().find(|(name, _)| name == arch).context("no such --arch")?;
    let (load, scan) = (weights(&options.weights)?, scan(options.scan.as_deref())?);
    let steps = options.rows.iter().map(|&rows| (rows, false));
    let mut all = vec![];
    for (tokens, prompt) in steps.chain(options.prompt.iter().map(|&tokens| (tokens, true))) {
        all.extend(pollster::block_on(work(config.as_bytes(), load, caps, [tokens, options.depth], prompt, scan))?);
    }
    Ok(all)
}

/// What the device can do at best.
struct Most {
    /// Bytes per second.
    bandwidth: Option<f64>,
    /// Multiplications and additions per second.
    flops: Option<f64>,
}

/// The device that the numbers belong to.
fn describe(gpu: &Gpu) -> serde_json::Value {
    let info = gpu.info();
    let Caps { f16, subgroup, coopmat, max_binding, .. } = gpu.caps();
    json!({
        "adapter": info.name, "backend": info.backend, "kind": info.kind, "driver": info.driver,
        "caps": { "f16": f16, "subgroup": subgroup, "coopmat": coopmat, "max_binding": max_binding },
    })
}

fn line(t: &Timing, times: usize, most: &Most) -> String {
    let [least, median, greatest] = t.seconds;
    let (spread, bytes) = ((greatest - least) / median * 50.0, t.gigabytes_per_second());
    let share = |rate: Option<f64>, most: Option<f64>| match rate.zip(most) {
        Some((rate, most)) => format!("{:.1}", rate / most * 100.0),
        None => "-".into(),
    };
    let flops = t.flops_per_second();
    format!(
        "{:<18} {:>5} {times:>5} {:>10.2} {spread:>6.1} {bytes:>8.0} {:>6} {:>8} {:>6}  {}",
        t.kernel,
        t.size.rows,
        median * 1e6,
        share(Some(bytes * 1e9), most.bandwidth),
        flops.map_or("-".into(), |flops| format!("{:.1}", flops / 1e12)),
        share(flops, most.flops),
        t.op
    )
}

fn object(t: &Timing, times: usize, most: &Most) -> serde_json::Value {
    let [least, median, greatest] = t.seconds;
    let bytes = t.gigabytes_per_second();
    json!({
        "kernel": t.kernel, "op": t.op, "rows": t.size.rows, "segments": t.size.segments, "repeats": t.repeats,
        "dispatches": times, "seconds": median, "seconds_least": least, "seconds_most": greatest,
        "bytes": t.bytes, "gigabytes_per_second": bytes, "bandwidth_share": most.bandwidth.map(|most| bytes * 1e9 / most),
        "flops": t.flops, "flops_share": t.flops_per_second().zip(most.flops).map(|(rate, most)| rate / most),
    })
}
