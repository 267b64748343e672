//! What a decode step costs, by its plan: dispatches, weights bound, and nothing made while it is replayed.
#![forbid(unsafe_code)]

use nemoflash::checkpoint::Header;
use nemoflash::kernel::Access;
use nemoflash::plan::Plan;
use nemoflash::{BUDGET, Buf, Caps, Elem, Engine, EngineOptions, Event, Exec, LoadOptions, Loaded, Part, Sampling};
use nemoflash_tests::{GOLDEN, Mode, checkpoint, expected, kinds, load, targets, targets_in};
use pollster::block_on;
use std::ops::ControlFlow;

/// Tokens of context: keys in one split, and in several.
const CONTEXTS: [u32; 2] = [100, 4096];
/// Dispatches of one decode step at each of [`CONTEXTS`]. They may fall; they must not rise.
const DISPATCHES: [(&str, [usize; 2]); 7] = [
    ("mixed", [24, 25]),
    ("wide-heads", [15, 16]),
    ("variants", [22, 24]),
    ("attention-only", [14, 16]),
    ("qwen3", [19, 22]),
    ("qwen3-mlx", [19, 22]),
    ("fables", [34, 35]),
];

/// A dry run: steps are recorded and do not run, and `dry_run.rs` holds it against an engine that does.
fn engine(caps: &Caps, name: &str, context: u32) -> Engine {
    let (config, bytes) = checkpoint(name);
    let end = 8 + u64::from_le_bytes(*bytes.first_chunk().expect("a length")) as usize;
    let header = Header::parse(&bytes[8..end], None).expect("a header");
    let loaded = block_on(Loaded::dry_run(caps, &config, &[header], LoadOptions::default()));
    let options = EngineOptions { context, prefill_rows: Some(512), ..Default::default() };
    block_on(Engine::new(loaded.unwrap_or_else(|e| panic!("{name}: {e}")), options)).expect("engine")
}

/// Parts that take more dispatches than the budget has for them.
fn over(engine: &Engine, budget: &[(Part, usize)]) -> Vec<String> {
    let parts = engine.explain().parts;
    let most = |name| budget.iter().find(|(part, _)| *part == name).map_or(0, |(_, most)| *most);
    let over = parts.iter().filter(|part| part.dispatches > part.count * most(part.part));
    over.map(|part| format!("{}: {} for {}", part.part, part.dispatches, part.count)).collect()
}

/// Weights that are not bound exactly once in a decode step, and the bytes of all that are bound. Weights are what
/// no step writes; the embedding is looked up as well as multiplied, and angle tables are shared.
fn weights(plans: &[&Plan]) -> (Vec<String>, u64) {
    let steps: Vec<_> = plans.iter().flat_map(|plan| &plan.steps).collect();
    let bindings = || {
        steps.iter().flat_map(|step| {
            let kernel = step.op.kernel();
            kernel.binds.iter().zip(step.bufs.clone()).map(move |(bind, buf)| (kernel.name, bind, buf))
        })
    };
    let written: Vec<Buf> =
        bindings().filter(|(_, bind, _)| bind.access != Access::Read).map(|(.., buf)| buf).collect();
    let mut bound: Vec<Buf> = vec![];
    let mut faults = vec![];
    for (kernel, bind, buf) in bindings() {
        let weight = matches!(buf.elem, Elem::Weights | Elem::F32) && bind.name != "rotary" && kernel != "embed";
        if !weight || written.contains(&buf) {
            continue;
        }
        if bound.contains(&buf) {
            faults.push(format!("{kernel} binds {} again", bind.name));
        }
        bound.push(buf);
    }
    (faults, bound.iter().map(Buf::bytes).sum())
}

fn check(label: &str, caps: &Caps) {
    let mut found = DISPATCHES;
    for (name, found) in &mut found {
        for (context, found) in CONTEXTS.into_iter().zip(found) {
            let engine = engine(caps, name, context);
            let case = format!("{label} {name} context {context}");
            let explain = engine.explain();
            *found = explain.dispatches_per_token;
            assert_eq!(over(&engine, &BUDGET), [""; 0], "{case}");
            assert_eq!(explain.parts.iter().map(|part| part.dispatches).sum::<usize>(), *found, "{case}");
            assert_eq!(explain.kernels.iter().map(|kernel| kernel.dispatches).sum::<usize>(), *found, "{case}");
            let (faults, bytes) = weights(&engine.decode_plans());
            assert_eq!(faults, [""; 0], "{case}");
            // Meta tokens and the zeros for a bias that DeltaNet lacks are for prefill alone.
            let deltas =
                explain.parts.iter().find(|part| part.part == Part::DeltaNet).map_or(0, |part| part.count as u64);
            let [meta, hidden] = [engine.config().meta_tokens, engine.config().hidden_size].map(u64::from);
            let unused = 2 * meta * hidden + 4 * deltas * 3 * hidden;
            assert_eq!(bytes + unused, explain.device_bytes.weights, "{case}");
        }
    }
    assert_eq!(found, DISPATCHES, "{label}: where it fell, lower the constant");
}

#[test]
fn decode_keeps_its_budget() {
    assert_eq!(DISPATCHES.map(|(name, _)| name), GOLDEN.map(|(name, _)| name));
    check("cpu", &Caps::CPU);
    // A plan is recorded from the model, the options and what the device can do, before any kernel is compiled.
    for (kind, caps) in kinds() {
        check(kind, &caps);
    }
    for target in targets("budget") {
        let device = target.lend().expect("device");
        check(&target.to_string(), device.exec.caps());
        target.give_back(device.exec);
    }
}

/// The checks can fail: a smaller budget is exceeded, and a step that runs twice binds every weight twice.
#[test]
fn excess_is_found() {
    let engine = engine(&Caps::CPU, "mixed", 4096);
    for (i, (name, most)) in BUDGET.into_iter().enumerate() {
        let mut small = BUDGET;
        small[i].1 = most - 1;
        assert!(over(&engine, &small).iter().any(|line| line.starts_with(name.name())), "{name}");
    }
    let [body, ends] = engine.decode_plans();
    let twice = weights(&[body, ends, ends]).0;
    assert!(twice.iter().any(|line| line == "logits binds w again"), "{twice:?}");
}

/// Once everything has run, tokens are made from the buffers and pipelines that are there.
#[test]
fn replay_makes_nothing() {
    for target in targets_in("replay", &[Mode::Full]) {
        let loaded = load(target.lend().expect("device").exec, "mixed").expect("model");
        let options = EngineOptions { context: 300, prefill_rows: Some(512), ..Default::default() };
        let mut engine = block_on(Engine::new(loaded, options)).expect("engine");
        let ids = expected("mixed", "").ids;
        let made = |engine: &Engine| match engine.exec() {
            Exec::Gpu(gpu) => gpu.made(),
            _ => unreachable!("a target is a device"),
        };
        let run = |engine: &mut Engine, prompt: &[u32], most| {
            let mut tokens = 0;
            let mut on_event = |event| {
                tokens += usize::from(matches!(event, Event::Token(_)));
                ControlFlow::Continue(())
            };
            engine.begin(0, &Sampling::default()).expect("begin");
            block_on(engine.generate(0, prompt, most, &mut on_event)).expect("generate");
            tokens
        };
        assert_eq!(run(&mut engine, &ids[..20], 12), 12);
        let before = made(&engine);
        assert_eq!(run(&mut engine, &ids[..33], 40), 40);
        assert_eq!(made(&engine), before, "{target}");
        // The count counts: a longer prompt needs a plan of more rows.
        run(&mut engine, &ids[..70], 1);
        assert!(made(&engine) > before, "{target}");
        target.give_back(engine.into_exec());
    }
}
