//! `cargo bench -p nemoflash-benches -- [--adapter TEXT|INDEX] [--backend NAME] [--deny LIST] [--filter TEXT]
//! [--json]`: every operator on one adapter. `cargo test` runs each example once instead, on whatever adapter
//! there is.
#![forbid(unsafe_code)]

use anyhow::bail;
use clap::Parser;
use nemoflash::ops::examples;
use nemoflash::{Caps, Deny, Error, Exec, Gpu, GpuOptions};
use nemoflash_benches::{Effort, Timing, time};
use serde_json::json;
use std::time::Duration;

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
    /// Runs per example; the median counts
    #[arg(long, default_value_t = 9)]
    runs: usize,
    /// Milliseconds of work before the runs of each example
    #[arg(long, default_value_t = 200)]
    warm_up: u64,
    /// The least milliseconds of one run
    #[arg(long, default_value_t = 5)]
    run: u64,
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
        true => Effort {
            warm_up: Duration::from_millis(options.warm_up),
            run: Duration::from_millis(options.run),
            runs: options.runs.max(1),
        },
    };
    let deny = |name: &str| options.deny.iter().any(|denied| denied == name);
    if let Some(other) = options.deny.iter().find(|name| !["f16", "subgroups", "coopmat"].contains(&name.as_str())) {
        bail!("--deny: `{other}` is not one of f16, subgroups, coopmat");
    }
    let gpu = pollster::block_on(Gpu::new(&GpuOptions {
        backend: options.backend.clone(),
        adapter: options.adapter.clone(),
        deny: Deny { f16: deny("f16"), subgroups: deny("subgroups"), coopmat: deny("coopmat") },
        ..Default::default()
    }));
    let gpu = match gpu {
        Ok(gpu) => gpu,
        Err(Error::NoAdapter { why }) if !measure => {
            eprintln!("not run: benches: no adapter ({why})");
            return Ok(());
        }
        Err(e) => return Err(e.into()),
    };
    let device = describe(&gpu);
    let mut exec = Exec::Gpu(Box::new(gpu));
    let mut results = vec![];
    if measure && !options.json {
        println!("{device:#}\n{:<18} {:>5} {:>12} {:>8} {:>9}  example", "kernel", "rows", "µs", "±%", "GB/s");
    }
    for case in examples() {
        if !case.op.kernel().name.contains(options.filter.as_deref().unwrap_or_default()) {
            continue;
        }
        match time(&mut exec, case, effort) {
            Ok(timing) => {
                if measure && !options.json {
                    println!("{}", line(&timing));
                }
                results.push(timing);
            }
            // A buffer that this device cannot bind is no fault of the operator.
            Err(e @ Error::Limit { .. }) => eprintln!("skipped: {e}"),
            Err(e) => return Err(e.into()),
        }
    }
    match (measure, options.json) {
        (true, true) => {
            println!("{:#}", json!({ "device": device, "results": results.iter().map(object).collect::<Vec<_>>() }))
        }
        (true, false) => {}
        (false, _) => println!("{} examples run", results.len()),
    }
    Ok(())
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

fn line(t: &Timing) -> String {
    let [least, median, most] = t.seconds;
    let (spread, speed) = ((most - least) / median * 50.0, t.gigabytes_per_second());
    format!("{:<18} {:>5} {:>12.2} {spread:>8.1} {speed:>9.2}  {}", t.kernel, t.size.rows, median * 1e6, t.op)
}

fn object(t: &Timing) -> serde_json::Value {
    let [least, median, most] = t.seconds;
    json!({
        "kernel": t.kernel, "op": t.op, "rows": t.size.rows, "segments": t.size.segments, "repeats": t.repeats,
        "seconds": median, "seconds_least": least, "seconds_most": most,
        "bytes": t.bytes, "gigabytes_per_second": t.gigabytes_per_second(),
    })
}
