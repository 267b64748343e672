//! `nemoflash explain`: says how a model would run here. It is a dry run: no weights are read, and nothing is allocated on the
//! device.

use crate::args::Common;
use crate::devices::table;
use crate::report::Exit;
use crate::{open, terminal};
use anyhow::Result;
use nemoflash::{Explain, Part};

/// Runs the command.
///
/// # Errors
/// See [`open`].
pub async fn run(common: &Common) -> Result<Exit> {
    let dry = open::dry_run(common).await?;
    let explain = Explain { device: dry.adapter, ..dry.engine.explain() };
    let text = match common.json {
        true => format!("{}\n", serde_json::to_string_pretty(&explain)?),
        false => page(&dry.name, &explain),
    };
    terminal::print(&text)?;
    Ok(Exit::Done)
}

fn page(name: &str, explain: &Explain) -> String {
    let Explain { device, context, kv, .. } = explain;
    let held = explain.device_bytes;
    let mut how = vec![match explain.subgroup {
        Some(size) => format!("subgroups of {size}"),
        None => "no subgroups".into(),
    }];
    if explain.coopmat {
        how.push("cooperative matrices in prefill".into());
    }
    if explain.parts.iter().any(|part| matches!(part.part, Part::Mamba2 | Part::DeltaNet)) {
        how.push(format!("{} scan in prefill", explain.prefill_scan));
    }
    if explain.meta_tokens > 0 {
        how.push(format!("{} meta tokens computed once", explain.meta_tokens));
    }
    let memory = [
        ["weights".into(), binary(held.weights), explain.weights.clone()],
        ["sequences".into(), binary(held.arena), format!("{context} tokens, keys and values in {kv}")],
        ["scratch".into(), binary(held.scratch), "activations, logits, rotary tables".into()],
        ["together".into(), binary(held.weights + held.arena + held.scratch), String::new()],
    ];
    let mut parts = vec![["PART", "BLOCKS", "DISPATCHES", "BYTES"].map(str::to_owned)];
    parts.extend(
        explain.parts.iter().map(|part| {
            [part.part.to_string(), part.count.to_string(), part.dispatches.to_string(), binary(part.bytes)]
        }),
    );
    let (dispatches, bytes) = (explain.dispatches_per_token.to_string(), binary(explain.bytes_per_token));
    parts.push(["together".into(), String::new(), dispatches, bytes]);
    // The sizes of workgroups and tiles are a GPU's: on the CPU, each operator is plain Rust.
    let on_gpu = device != "cpu";
    let mut kernels = vec![["KERNEL", "DISPATCHES", "WHY", if on_gpu { "CONSTANTS" } else { "" }].map(str::to_owned)];
    kernels.extend(explain.kernels.iter().map(|kernel| {
        let constants = if on_gpu { kernel.constants.clone() } else { String::new() };
        [kernel.name.to_owned(), kernel.dispatches.to_string(), kernel.why.to_owned(), constants]
    }));
    let logits = match explain.divide_logits {
        true => {
            "Each logit is divided by the length of its vocabulary row (`nemoflash doctor --model MODEL` tells the lengths)"
        }
        false => "Logits are used as they are",
    };
    format!(
        "{name} on {device}: {}\n\
         {logits}\n\
         \nMemory on the device\n{}\nOne token of an answer\n{}\nKernels\n{}",
        how.join(", "),
        table(&memory),
        table(&parts),
        table(&kernels),
    )
}

fn binary(bytes: u64) -> String {
    let unit = |shift: u32, name| format!("{:.1} {name}", bytes as f64 / (1u64 << shift) as f64);
    if bytes < 1 << 20 { unit(10, "KiB") } else { unit(20, "MiB") }
}
