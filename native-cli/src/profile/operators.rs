//! `nemoflash profile operators`: measures the latency look-up table, and tests it on held-out stacks.

use super::lab::{Lab, Protocol, Timed};
use super::options::{Kind, Operators};
use super::output;
use super::sections;
use crate::args::Common;
use crate::bench::{software, today, weights_name};
use crate::html::units::{digits, seconds};
use crate::outfile::Growing;
use crate::report::Exit;
use anyhow::{Result, bail};
use nemoflash::config::BlockKind;
use nemoflash::{Config, Error};
use nemoflash_bench::lookup::{
    Accuracy, Entry, HeldOut, LIMIT, Measured, Part, SCHEMA, Shape, Stack, Table, differences, held_out, letters,
};
use nemoflash_bench::report::{self, Clock, Summary, Test};
use nemoflash_bench::{Turns, warnings};
use std::collections::BTreeMap;

/// Size of the caches of large GPUs, in bytes. The weights of a smaller stack may stay in a cache from step to step.
const CACHES: u64 = 192 << 20;

/// Fewest held-out stacks for a meaningful test of the table.
const ENOUGH: usize = 4;

/// What is measured: the options, completed by the defaults for the device.
#[derive(Clone, Debug)]
struct Plan {
    hidden: Vec<u32>,
    batch: Vec<u32>,
    depth: Vec<u32>,
    parts: Vec<Part>,
    blocks: u32,
    seed: u64,
    protocol: Protocol,
}

impl Plan {
    fn new(common: &Common, args: &Operators, small: bool) -> Plan {
        let or = |given: &[u32], usual: &[u32], in_software: &[u32]| {
            let list = if given.is_empty() { if small { in_software } else { usual } } else { given };
            let mut list = list.to_vec();
            list.sort_unstable();
            list.dedup();
            list
        };
        let hidden = or(&args.hidden, &[1024, 1280, 1536, 1792, 2048, 2304, 2560, 3072], &[128, 256]);
        let (batch, mut depth) = (or(&args.batch, &[1, 8], &[1]), or(&args.n_depth, &[0, 1024, 4096], &[0, 64]));
        let mut parts: Vec<Part> = args.kinds.iter().copied().map(Kind::part).collect();
        parts.sort_unstable();
        parts.dedup();
        if parts.is_empty() {
            parts = Part::BLOCKS.to_vec();
        }
        if !parts.iter().any(|part| part.looks_back()) {
            depth.truncate(1);
        }
        let output = &args.output;
        let [tokens, runs, vocab] = match small {
            true => [8, 7, 4096],
            false => [32, 5, 131_072],
        };
        let tokens = output.n_gen.unwrap_or(tokens);
        let need = depth.last().copied().unwrap_or(0) + tokens + 1;
        let protocol = Protocol {
            shape: Shape { vocab: output.vocab.unwrap_or(vocab), ..Shape::default() },
            slots: batch.last().copied().unwrap_or(1),
            context: common.context.unwrap_or(0).max(need),
            tokens,
            runs: output.repetitions.unwrap_or(runs),
        };
        let blocks = args.blocks.unwrap_or(if small { 4 } else { 8 });
        Plan { hidden, batch, depth, parts, blocks, seed: args.seed, protocol }
    }

    /// All pairs (batch size, depth) for these depths.
    fn pairs(&self, depths: &[u32]) -> Vec<(u32, u32)> {
        depths.iter().flat_map(|&depth| self.batch.iter().map(move |&batch| (batch, depth))).collect()
    }

    /// The depths at which a part has entries. Parts that do not depend on depth have them only at the first.
    fn depths(&self, part: Part) -> &[u32] {
        if part.looks_back() { &self.depth } else { &self.depth[..1] }
    }

    /// The depths of the table, and one between the last two, at which only held-out stacks are measured.
    fn depths_between(&self) -> Vec<u32> {
        let mut depths = self.depth.clone();
        if let [.., near, far] = depths[..] {
            depths.insert(depths.len() - 1, near.midpoint(far));
        }
        depths
    }

    /// The selections of blocks that take turns in an engine with 1 + `more` blocks of each kind. At the depths of the table
    /// these are one block of each kind, and the same with `more` blocks of one kind. At all depths they are the held-out
    /// stacks.
    fn turns(&self, more: u32, held: &[Stack]) -> Vec<Turns> {
        let kinds = self.parts.len();
        let each = 1 + more as usize;
        let base: Vec<usize> = (0..kinds).map(|kind| kind * each).collect();
        let with = |kind: usize| {
            let mut all = [base.clone(), (kind * each + 1..(kind + 1) * each).collect()].concat();
            all.sort_unstable();
            all
        };
        let table: Vec<Vec<usize>> = [base.clone()].into_iter().chain((0..kinds).map(with)).collect();
        let held: Vec<Vec<usize>> = held.iter().map(|stack| self.selection(stack, each)).collect();
        let turns = |(batch, depth)| {
            let table = if self.depth.contains(&depth) { &table[..] } else { &[] };
            Turns { test: self.protocol.test(batch, depth), selections: [table, &held].concat() }
        };
        let mut pairs = self.pairs(&self.depths_between());
        if held.is_empty() {
            pairs.retain(|(_, depth)| self.depth.contains(depth));
        }
        pairs.into_iter().map(turns).collect()
    }

    /// The blocks of the engine that make a stack. If the stack has more blocks of a kind than the engine, it uses the first
    /// ones again. By then so many other weights have been read that no cache holds theirs.
    fn selection(&self, stack: &Stack, each: usize) -> Vec<usize> {
        let mut used = vec![0; self.parts.len()];
        let place = |part: &Part| {
            let kind = self.parts.iter().position(|kind| kind == part)?;
            used[kind] += 1;
            Some(kind * each + (used[kind] - 1) % each)
        };
        stack.blocks.iter().filter_map(place).collect()
    }

    /// Names and values of a part's dimensions.
    fn dims(&self, part: Part, hidden: u32) -> BTreeMap<String, u32> {
        let shape = self.protocol.shape;
        let config = Config::parse(shape.config(hidden, &[part]).as_bytes()).ok();
        let kind = config.and_then(|config| config.layers.into_iter().next()).map(|layer| layer.kind);
        let mut dims = vec![];
        match kind {
            _ if part == Part::Ends => dims.push(("vocab", shape.vocab)),
            Some(BlockKind::Attention(a)) => {
                dims.extend([("heads", a.heads), ("kv_heads", a.kv_heads), ("head_dim", a.head_dim)]);
                dims.extend(a.window.map(|window| ("window", window)));
            }
            Some(BlockKind::Mamba2(m)) => {
                dims.extend([("d_inner", m.d_inner), ("d_state", m.d_state)]);
                dims.extend([("heads", m.heads), ("head_dim", m.head_dim)]);
            }
            Some(BlockKind::DeltaNet(d)) => dims.extend([("heads", d.heads), ("head_dim", d.head_dim)]),
            Some(BlockKind::Ffn(f)) => dims.push(("width", f.width)),
            None => {}
        }
        dims.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }
}

/// Runs the study.
///
/// # Errors
/// If results cannot be written or the device cannot be opened again. After everything has been written: if nothing was
/// measured, or if the error of a prediction is above the limit.
pub async fn run(common: &Common, args: &Operators, mut lab: Lab<'_>, mut file: Option<Growing>) -> Result<Exit> {
    let plan = Plan::new(common, args, lab.small);
    let Protocol { shape, context, tokens, runs, .. } = plan.protocol;
    let mut table = Table {
        schema: SCHEMA.into(),
        date: today(),
        software: software(),
        device: lab.device.clone(),
        gate: lab.gate,
        weights: weights_name(common),
        kv: format!("{:?}", common.kv()).to_lowercase(),
        clock: Clock::Wall,
        context,
        tokens,
        runs,
        shape,
        entries: vec![],
        stacks: vec![],
        held_out: vec![],
        accuracy: None,
        warnings: lab.warnings.clone(),
    };
    let all = held_out(&plan.hidden, &plan.parts, plan.seed);
    if all.len() < ENOUGH {
        let words = format!("only {} held-out stacks consist of these kinds of blocks", all.len());
        table.warnings.push(format!("{words}: they say little about others. Measure all --kinds to test the table"));
    }
    for &hidden in &plan.hidden {
        let held: Vec<Stack> = all.iter().filter(|stack| stack.hidden == hidden).cloned().collect();
        size(&mut lab, &plan, &mut table, hidden, &held).await?;
        if lab.stopped() {
            break;
        }
        output::keep(&mut file, &table)?;
    }
    table.entries.sort_by_key(|entry| (entry.hidden, entry.batch, entry.part, entry.depth));
    table.warnings.extend(lost(&table.entries));
    table.accuracy = Accuracy::of(&table.held_out);
    let page = || sections::operators(&table);
    output::write(common, &args.output, file, &table, &table.warnings, || text(&table), page)?;
    if lab.stopped() {
        return Ok(Exit::Interrupted);
    }
    match &table.accuracy {
        _ if table.entries.iter().all(|entry| entry.seconds.is_none()) => {
            bail!("nothing was measured; each entry says why. Try smaller --hidden, --blocks, -b or -d")
        }
        Some(Accuracy { count, max, beyond, .. }) if *beyond > 0 => bail!(
            "the table predicts {beyond} of {count} held-out measurements off by more than {:.0} %, the worst by {:.1} %: do not \
             rely on the table. Measure on an idle machine with larger -r and -n",
            LIMIT * 100.0,
            max * 100.0
        ),
        _ => Ok(Exit::Done),
    }
}

/// Measures all entries and held-out stacks of a hidden size. One engine holds all blocks, and selections of them take turns.
async fn size(lab: &mut Lab<'_>, plan: &Plan, table: &mut Table, hidden: u32, held: &[Stack]) -> Result<()> {
    let mut more = plan.blocks;
    let (stack, timed) = loop {
        let blocks: Vec<Part> = plan.parts.iter().flat_map(|&part| vec![part; 1 + more as usize]).collect();
        let name = format!("{} blocks of each kind", 1 + more);
        let stack = Stack { name, hidden, blocks };
        match lab.time(&stack, &plan.protocol, &plan.turns(more, held)).await? {
            Ok(Some(timed)) => break (stack, timed),
            Ok(None) => return Ok(()),
            // Half as many blocks may fit.
            Err(Error::OutOfMemory { .. } | Error::Limit { .. }) if more > 1 => more /= 2,
            Err(error) => {
                let why = format!("not measured: {error}");
                plan.parts.iter().chain([&Part::Ends]).for_each(|&part| fail(plan, table, part, hidden, &why));
                return Ok(());
            }
        }
    };
    doubts(lab, plan, table, hidden, more, &timed);
    let turns = plan.turns(more, held);
    // The differences of all runs, by part, batch size and depth. Parts that do not depend on depth have their runs of all
    // depths together.
    let mut said: BTreeMap<(Part, u32, Option<u32>), Vec<f64>> = BTreeMap::new();
    for (Turns { test: Test { batch, depth, .. }, selections }, samples) in turns.iter().zip(&timed.samples) {
        if !plan.depth.contains(depth) {
            continue;
        }
        for (selection, samples) in selections.iter().zip(samples).take(1 + plan.parts.len()) {
            let blocks: Vec<Part> = selection.iter().map(|&at| stack.blocks[at]).collect();
            let (blocks, samples) = (letters(&blocks), samples.clone());
            table.stacks.push(Measured { hidden, blocks, batch: *batch, depth: *depth, samples });
        }
        let mut left = samples[0].clone();
        for (&part, with) in plan.parts.iter().zip(&samples[1..]) {
            let each = differences(&samples[0], with, more);
            left.iter_mut().zip(&each).for_each(|(left, each)| *left -= each);
            said.entry((part, *batch, part.looks_back().then_some(*depth))).or_default().extend(each);
        }
        said.entry((Part::Ends, *batch, None)).or_default().extend(left);
    }
    for ((part, batch, depth), each) in said {
        let kind = plan.parts.iter().position(|kind| *kind == part);
        let bytes = kind.map_or(timed.ends, |kind| timed.blocks[kind * (1 + more as usize)]);
        let blocks = if kind.is_some() { more } else { 0 };
        table.entries.extend(entry(plan, (part, hidden, batch, depth), bytes, blocks, &each));
    }
    for (at, stack) in held.iter().enumerate() {
        let tested =
            turns.iter().zip(&timed.samples).map(|(Turns { test: Test { batch, depth, .. }, selections }, samples)| {
                let measured = Summary::of(&samples[selections.len() - held.len() + at]);
                against(table, stack, *batch, *depth, measured)
            });
        let mut tested: Vec<HeldOut> = tested.collect();
        tested.sort_by_key(|tested| (tested.batch, tested.depth));
        table.held_out.extend(tested);
    }
    Ok(())
}

/// Compares the measurement of a held-out stack with the prediction of the table.
fn against(table: &Table, stack: &Stack, batch: u32, depth: u32, measured: Option<Summary>) -> HeldOut {
    let predicted = table.predict(stack, batch, depth);
    let why = predicted.as_ref().err().map(ToString::to_string);
    let predicted = predicted.ok();
    let error = predicted.zip(measured).map(|(predicted, measured)| predicted / measured.median - 1.0);
    let (name, hidden, blocks) = (stack.name.clone(), stack.hidden, letters(&stack.blocks));
    HeldOut { name, hidden, blocks, batch, depth, predicted, measured, error, why }
}

/// Makes an entry from the differences of all runs. None without runs. A time below 0 is noise, and counts as 0.
fn entry(
    plan: &Plan,
    (part, hidden, batch, depth): (Part, u32, u32, Option<u32>),
    bytes: u64,
    blocks: u32,
    each: &[f64],
) -> Option<Entry> {
    let Summary { median, low, high, .. } = Summary::of(each)?;
    let dims = plan.dims(part, hidden);
    let [seconds, low, high] = [median, low, high].map(|seconds| Some(seconds.max(0.0)));
    Some(Entry { part, hidden, batch, depth, dims, bytes, blocks, seconds, low, high, error: None })
}

/// Adds entries with an error for a part that cannot be measured.
fn fail(plan: &Plan, table: &mut Table, part: Part, hidden: u32, why: &str) {
    for (batch, depth) in plan.pairs(plan.depths(part)) {
        table.entries.push(Entry {
            part,
            hidden,
            batch,
            depth: part.looks_back().then_some(depth),
            dims: plan.dims(part, hidden),
            bytes: 0,
            blocks: 0,
            seconds: None,
            low: None,
            high: None,
            error: Some(why.to_owned()),
        });
    }
}

/// Adds warnings about what makes the numbers of a hidden size less certain.
fn doubts(lab: &Lab<'_>, plan: &Plan, table: &mut Table, hidden: u32, more: u32, timed: &Timed) {
    let smallest =
        timed.samples.iter().filter(|turns| turns.len() > plan.parts.len()).filter_map(|turns| turns.first());
    if let Some(warning) = smallest.flat_map(|samples| warnings(report::Kind::Decode, samples)).next() {
        table.warnings.push(format!("hidden size {hidden}: {warning}"));
    }
    let bytes = timed.ends + timed.blocks.iter().step_by(1 + more as usize).sum::<u64>();
    if !lab.small && bytes < CACHES {
        table.warnings.push(format!(
            "hidden size {hidden}: the smallest stack has {} MB of weights, which the caches of some GPUs may hold from step \
             to step. Use a larger --vocab",
            bytes / 1_000_000
        ));
    }
}

/// A warning about entries that are smaller than the noise.
fn lost(entries: &[Entry]) -> Option<String> {
    let lost: Vec<&Entry> = entries.iter().filter(|entry| entry.seconds == Some(0.0)).collect();
    let first = lost.first()?;
    Some(format!(
        "{} of {} entries are lost in noise and count as 0 (the first: {} of hidden size {}). Use larger --blocks, -n or -r",
        lost.len(),
        entries.len(),
        first.part.name(),
        first.hidden
    ))
}

/// The results as text for the terminal.
fn text(table: &Table) -> String {
    let mut rows = vec![];
    let mut keys: Vec<(u32, u32, u32)> = vec![];
    let depths: Vec<u32> = table.entries.iter().filter_map(|entry| entry.depth).collect();
    for entry in &table.entries {
        for depth in entry.depth.map_or_else(|| if depths.is_empty() { vec![0] } else { depths.clone() }, |at| vec![at])
        {
            keys.push((entry.hidden, entry.batch, depth));
        }
    }
    keys.sort_unstable();
    keys.dedup();
    let parts: Vec<Part> = Part::BLOCKS.into_iter().chain([Part::Ends]).collect();
    let there = |part: &Part| table.entries.iter().any(|entry| entry.part == *part);
    let parts: Vec<Part> = parts.into_iter().filter(there).collect();
    for (hidden, batch, depth) in keys {
        let cell = |part: &Part| match table.part(*part, hidden, batch, depth) {
            Ok(seconds) => digits(seconds * 1e6),
            Err(_) => "-".into(),
        };
        let numbers = [hidden, batch, depth].map(|number| number.to_string());
        rows.push(numbers.into_iter().chain(parts.iter().map(cell)).collect());
    }
    let head: Vec<&str> =
        ["hidden", "batch", "depth"].into_iter().chain(parts.iter().map(|part| part.name())).collect();
    let mut text = format!("Microseconds that one block adds to a decode step\n\n{}", output::table(&head, &rows, 0));
    let mut reasons: Vec<&str> = table.entries.iter().filter_map(|entry| entry.error.as_deref()).collect();
    reasons.dedup();
    reasons.iter().for_each(|reason| text += &format!("- {reason}\n"));
    let rows: Vec<Vec<String>> = table
        .held_out
        .iter()
        .map(|stack| {
            let time = |value: Option<f64>| value.map_or("-".into(), seconds);
            vec![
                stack.name.clone(),
                stack.hidden.to_string(),
                stack.batch.to_string(),
                stack.depth.to_string(),
                time(stack.predicted),
                time(stack.measured.map(|measured| measured.median)),
                stack.error.map_or_else(|| "-".into(), |error| format!("{:+.1} %", error * 100.0)),
            ]
        })
        .collect();
    if !rows.is_empty() {
        let head = ["held-out stack", "hidden", "batch", "depth", "predicted", "measured", "error"];
        text += &format!("\nWhole stacks that no entry was computed from\n\n{}", output::table(&head, &rows, 1));
    }
    if let Some(accuracy) = &table.accuracy {
        text += &format!("\n{}\n", sections::verdict(accuracy));
    }
    text
}
