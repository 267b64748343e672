//! The times of single dispatches: from stamps inside a step's pass, and, where there are none as in a browser, around a pass of
//! each. No time is asserted.
#![forbid(unsafe_code)]

use nemoflash::{Engine, EngineOptions, Error, Exec, Sampling};
use nemoflash_bench::report::{Kind, Test};
use nemoflash_bench::{Settings, operators};
use nemoflash_tests::{Mode, load, targets_in};
use pollster::block_on;
use std::collections::BTreeSet;
use std::ops::ControlFlow;

fn engine(exec: Exec) -> Engine {
    let loaded = load(exec, "mixed").expect("model");
    block_on(Engine::new(loaded, EngineOptions { context: 32, ..Default::default() })).expect("engine")
}

#[test]
fn every_dispatch_has_its_time() {
    for target in targets_in("profile", &[Mode::Full, Mode::Floor]) {
        let exec = target.lend().expect("device").exec;
        let Exec::Gpu(gpu) = &exec else { unreachable!() };
        let (timestamps, inside) = (gpu.caps().timestamps, gpu.stamps_inside());
        // A browser's device has none inside.
        assert!(!inside || (timestamps && target.mode == Mode::Full), "{target}");
        let mut engine = engine(exec);
        engine.begin(0, &Sampling::default()).expect("begin");
        let profile = block_on(engine.profile(0, &[1]));
        if !timestamps {
            assert!(matches!(profile, Err(Error::Limit { .. })), "{target}");
            target.give_back(engine.into_exec());
            continue;
        }
        let profile = profile.expect("profile");
        assert_eq!(profile.len(), engine.explain().dispatches_per_token, "{target}");
        // A driver's stamps may be coarse, but not all of them at one moment.
        assert!(profile.iter().map(|dispatch| dispatch.seconds).sum::<f64>() > 0.0, "{target}");
        let parts: BTreeSet<_> = profile.iter().map(|dispatch| dispatch.part.name()).collect();
        assert!(["attention", "mamba2", "deltanet", "ffn", "head", "pick"].iter().all(|part| parts.contains(part)));
        target.give_back(engine.into_exec());
    }
    // Negative control: the CPU has no stamps.
    let mut engine = engine(Exec::cpu());
    engine.begin(0, &Sampling::default()).expect("begin");
    assert!(matches!(block_on(engine.profile(0, &[1])), Err(Error::Limit { .. })));
}

/// Averages that do not become steady in the seconds that they have are not told.
#[test]
fn what_is_not_steady_is_not_told() {
    for target in targets_in("profile", &[Mode::Floor]) {
        let exec = target.lend().expect("device").exec;
        if !exec.caps().timestamps {
            target.give_back(exec);
            continue;
        }
        let mut engine = engine(exec);
        let test = Test::new(Kind::Decode, 0, 4, 0, 1);
        let mut told = |steady, profile, go| {
            let settings = Settings { runs: 1, warm_up: 1, profile, steady, bandwidth: None, clock: || 0.0 };
            block_on(operators(&mut engine, &test, &settings, &mut |_| go)).expect("operators")
        };
        let go = ControlFlow::Continue(());
        // Of one step nothing is known, and there is no time for another.
        assert_eq!(told(Some(0.0), 1, go), Some(vec![]), "{target}");
        // Negative controls: it is told where nobody asks, and ended where somebody does.
        let dispatches = told(None, 1, go).expect("told").iter().map(|operator| operator.dispatches).sum::<u32>();
        assert_eq!(dispatches as usize, engine_dispatches(), "{target}");
        assert_eq!(told(None, 1, ControlFlow::Break(())), None, "{target}");
        target.give_back(engine.into_exec());
    }
}

fn engine_dispatches() -> usize {
    engine(Exec::cpu()).explain().dispatches_per_token
}
