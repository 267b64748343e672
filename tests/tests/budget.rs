//! What a decode step costs, by its plan: dispatches, weights bound, and nothing made while it is replayed.
#![forbid(unsafe_code)]

use nemoflash::kernel::Access;
use nemoflash::{BUDGET, Buf, Elem, Engine, EngineOptions, Event, Exec, Sampling};
use nemoflash_tests::{GOLDEN, expected, load, targets};
use pollster::block_on;
use std::ops::ControlFlow;

/// Dispatches of one decode step at a context of 100 and of 4096 tokens. They may fall; they must not rise.
const DISPATCHES: [(&str, [usize; 2]); 5] =
    [("mixed", [0, 0]), ("wide-heads", [0, 0]), ("variants", [0, 0]), ("attention-only", [0, 0]), ("fables", [0, 0])];

fn engine(mut exec: Exec, name: &str, context: u32) -> Engine {
    let model = load(&mut exec, name).unwrap_or_else(|e| panic!("{name}: {e}"));
    block_on(Engine::new(exec, model, EngineOptions { context, ..Default::default() })).expect("engine")
}

/// Parts that take more dispatches than the budget has for them.
fn over(engine: &Engine, budget: &[(&str, usize)]) -> Vec<String> {
    let parts = engine.explain().parts;
    let most = |name| budget.iter().find(|(part, _)| *part == name).map_or(0, |(_, most)| *most);
    let over = parts.iter().filter(|part| part.dispatches > part.count * most(part.part));
    over.map(|part| format!("{}: {} for {}", part.part, part.dispatches, part.count)).collect()
}

/// Weights that are not bound exactly once in a decode step, and the bytes of all that are bound. Weights are what
/// no step writes; the embedding is looked up as well as multiplied, and angle tables are shared.
fn weights(engine: &Engine) -> (Vec<String>, u64) {
    let steps: Vec<_> = engine.decode_plans().into_iter().flat_map(|plan| &plan.steps).collect();
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
        let weight = matches!(buf.elem, Elem::Bf16 | Elem::F32) && bind.name != "rotary" && kernel != "embed";
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

fn check(label: &str, mut exec: Exec) {
    for (name, want) in DISPATCHES {
        for (context, want) in [100, 4096].into_iter().zip(want) {
            let engine = engine(exec, name, context);
            let case = format!("{label} {name} context {context}");
            let explain = engine.explain();
            assert_eq!(over(&engine, &BUDGET), [""; 0], "{case}");
            assert_eq!(explain.dispatches_per_token, want, "{case}: if it fell, lower the constant");
            assert_eq!(explain.parts.iter().map(|part| part.dispatches).sum::<usize>(), want, "{case}");
            assert_eq!(explain.kernels.iter().map(|kernel| kernel.dispatches).sum::<usize>(), want, "{case}");
            let (faults, bytes) = weights(&engine);
            let all = explain.device_bytes.weights;
            assert_eq!(faults, [""; 0], "{case}");
            // Meta tokens are the only weights that a decode step has no use for.
            let unused = u64::from(engine.config().memory_tokens * engine.config().hidden_size) * 2;
            assert_eq!(bytes + unused, all, "{case}");
            exec = engine.into_exec();
        }
    }
}

#[test]
fn decode_keeps_its_budget() {
    assert_eq!(DISPATCHES.map(|(name, _)| name), GOLDEN.map(|(name, _)| name));
    check("cpu", Exec::cpu());
    for target in targets("budget") {
        check(&target.to_string(), target.open().expect("device").exec);
    }
}

/// The checks can fail: a smaller budget is exceeded.
#[test]
fn excess_is_found() {
    let engine = engine(Exec::cpu(), "mixed", 4096);
    for (i, (name, most)) in BUDGET.into_iter().enumerate() {
        let mut small = BUDGET;
        small[i].1 = most - 1;
        assert!(over(&engine, &small).iter().any(|line| line.starts_with(name)), "{name}");
    }
}

/// Once everything has run, tokens are made from the buffers and pipelines that are there.
#[test]
fn replay_makes_nothing() {
    for target in targets("replay") {
        let mut engine = engine(target.open().expect("device").exec, "mixed", 300);
        let ids = expected("mixed", "").ids;
        let made = |engine: &Engine| match engine.exec() {
            Exec::Gpu(gpu) => gpu.made(),
            Exec::Cpu(_) => unreachable!("a target is a device"),
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
    }
}
