//! `Engine::nll` against the float64 reference, on the CPU and on every device.
#![forbid(unsafe_code)]

use nemoflash::{Engine, EngineOptions, Error, Exec, Kv, Sampling};
use nemoflash_tests::{Mode, expected, load, loud, targets_in};
use pollster::block_on;

/// Largest difference in nats from the reference, in exact arithmetic. Measured: 2.0e-6 (CPU), 3.4e-6 (llvmpipe), 3.7e-6
/// (SwiftShader).
const EXACT: f64 = 1.1e-5;

/// `-ln p` of the tokens after the first by the reference's logits, whose row 0 belongs to token `at`.
fn reference(logits: &[f32], ids: &[u32], at: usize) -> Vec<f64> {
    let vocab = logits.len() / ids.len();
    let rows = logits.chunks_exact(vocab).zip(&ids[at..]);
    rows.map(|(row, &id)| {
        row.iter().map(|&logit| f64::from(logit).exp()).sum::<f64>().ln() - f64::from(row[id as usize])
    })
    .collect()
}

fn worst(want: &[f64], got: &[f32]) -> f64 {
    assert_eq!(want.len(), got.len());
    want.iter().zip(got).map(|(want, got)| (want - f64::from(*got)).abs()).fold(0.0, f64::max)
}

fn check(label: &str, exec: Exec) -> Exec {
    let loaded = load(exec, "mixed").expect("model");
    let expected = expected("mixed", "");
    let ids = &expected.ids;
    let context = ids.len() as u32 - 1;
    let options = EngineOptions { context, kv: Kv::F32, prefill_rows: Some(16), ..Default::default() };
    let mut engine = block_on(Engine::new(loaded, options)).expect("engine");
    // The last token is not run: a text is one token longer than the context.
    let want = reference(&expected.logits, ids, 1);
    engine.begin(0, &Sampling::default()).expect("begin");
    let whole = block_on(engine.nll(0, ids)).expect("nll");
    let difference = worst(&want, &whole);
    loud(&format!("nll: {label}: at most {difference:.1e} nats from the reference over {} tokens", whole.len()));
    assert!(difference < EXACT, "{label}: {difference}");
    assert_eq!(engine.position(0).expect("position"), context, "{label}");
    // In parts, each of which begins with the last token of the one before.
    engine.begin(0, &Sampling::default()).expect("begin");
    let mut parts = vec![];
    for end in [2, 10, 11, 60, ids.len()] {
        parts.extend(block_on(engine.nll(0, &ids[parts.len()..end])).expect("nll"));
    }
    assert!(worst(&want, &parts) < EXACT, "{label}: {}", worst(&want, &parts));
    // Negative control: the rows of the wrong tokens.
    let shifted = reference(&expected.logits, ids, 0);
    assert!(worst(&shifted[..whole.len()], &whole) > 1000.0 * EXACT, "{label}");
    // What cannot be scored is refused and changes nothing.
    engine.begin(0, &Sampling::default()).expect("begin");
    let long = [ids.as_slice(), &[1]].concat();
    for bad in [&[][..], &[1], &[1, 512], &long] {
        let error = block_on(engine.nll(0, bad)).expect_err("refused");
        assert!(matches!(error, Error::Prompt { .. }), "{label}: {error}");
    }
    assert_eq!(engine.position(0).expect("position"), 0, "{label}");
    engine.into_exec()
}

#[test]
fn tokens_are_as_surprising_as_the_reference_says() {
    check("cpu", Exec::cpu());
    for target in targets_in("nll", &[Mode::Full]) {
        target.give_back(check(&target.to_string(), target.lend().expect("device").exec));
    }
}
