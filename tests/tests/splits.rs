//! Matrices and memory beyond what one binding holds.
#![forbid(unsafe_code)]

use nemoflash::{
    Caps, Engine, EngineOptions, Error, Event, Exec, Kv, LoadOptions, Loaded, Part, Quant, Sampling, Synthetic,
};
use nemoflash_tests::{Mode, close, load, load_synthetic, loud, targets_in};
use pollster::block_on;
use std::ops::ControlFlow;

/// An embedding of 154 MB, of which a binding of 128 MiB holds the tokens 0 .. 262144.
const CONFIG: &[u8] = br#"{
    "architectures": ["NemotronFlashForCausalLM"], "model_type": "nemotron_flash", "torch_dtype": "bfloat16",
    "vocab_size": 300000, "hidden_size": 256, "num_hidden_layers": 2, "layer_types": ["a", "f"],
    "num_attention_heads": 4, "num_key_value_heads": 2, "ffn_expand_ratio": 3, "intermediate_size": 0,
    "mlp_hidden_act": "silu", "num_memory_tokens": 4, "rms_norm_eps": 1e-6, "rope": true, "rope_type": null,
    "rope_theta": 10000.0, "max_position_embeddings": 4096, "orig_max_position_embeddings": null, "kq_norm": "none",
    "attn_hidden_size": -1, "kq_head_dim": -1, "v_head_dim": -1, "sliding_window": null, "global_attn_idx": null,
    "mamba_d_state": 128, "mamba_d_conv": 4, "mamba_expand": 2, "mamba2_headdim": 64,
    "tie_word_embeddings": true, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0
}"#;
const OPTIONS: EngineOptions =
    EngineOptions { slots: 1, context: 64, kv: Kv::F32, scan: None, prefill_rows: None, clock: None };
const SECOND: u32 = (128 << 20) / 512;
/// Tokens of both parts, at their edges too; the last is of the second. Few: each takes a software adapter seconds.
const PROMPT: [u32; 5] = [0, SECOND - 1, SECOND, 299_999, 299_998];

/// RMS ratio of logits between a device and the CPU. Measured: at most 1.3e-6 (llvmpipe, SwiftShader).
const SAME: f64 = 4e-6;

struct Outcome {
    logits: Vec<f32>,
    step: Vec<f32>,
    tokens: Vec<u32>,
}

fn outcome(exec: Exec) -> (Outcome, Exec) {
    let loaded = load_synthetic(exec, CONFIG, 1).expect("model");
    let mut engine = block_on(Engine::new(loaded, OPTIONS)).expect("engine");
    engine.begin(0, &Sampling::default()).expect("begin");
    let logits = block_on(engine.logits(0, &PROMPT)).expect("logits");
    let step = block_on(engine.logits(0, &[SECOND + 5])).expect("logits");
    engine.begin(0, &Sampling::default()).expect("begin");
    let mut tokens = vec![];
    let mut on_event = |event| {
        if let Event::Token(token) = event {
            tokens.push(token);
        }
        ControlFlow::Continue(())
    };
    block_on(engine.generate(0, &PROMPT, 4, &mut on_event)).expect("generate");
    (Outcome { logits, step, tokens }, engine.into_exec())
}

/// Parts of the embedding, as the decode step binds them, and of the head.
fn parts(caps: &Caps) -> [usize; 2] {
    let loaded = block_on(Loaded::dry_run(caps, CONFIG, &[], LoadOptions::default())).expect("model");
    let explain = block_on(Engine::new(loaded, OPTIONS)).expect("engine").explain();
    [Part::Embedding, Part::Head]
        .map(|name| explain.parts.iter().find(|part| part.part == name).map_or(0, |part| part.dispatches))
}

#[test]
fn a_vocabulary_in_two_parts() {
    let (want, _) = outcome(Exec::cpu());
    assert_eq!(parts(&Caps::CPU), [1, 1], "the CPU binds any matrix in one piece");
    let second = want.tokens.iter().filter(|&&token| token >= SECOND).count();
    assert!(0 < second && second < want.tokens.len(), "tokens of both parts: {:?}", want.tokens);
    let mut split = 0;
    // Plain mode has the limits of full mode.
    for target in targets_in("splits", &[Mode::Full, Mode::Floor]) {
        let device = target.lend().expect("device");
        let small = device.exec.caps().max_binding < 300_000 * 512;
        assert_eq!(parts(device.exec.caps()), if small { [2, 2] } else { [1, 1] }, "{target}");
        if !small {
            // A matrix in one piece is what all other suites run.
            target.give_back(device.exec);
            continue;
        }
        let (got, exec) = outcome(device.exec);
        target.give_back(exec);
        split += 1;
        let prompt = close(&format!("{target} prompt"), &want.logits, &got.logits, SAME).expect("logits");
        let step = close(&format!("{target} step"), &want.step, &got.step, SAME).expect("logits");
        assert_eq!(want.tokens, got.tokens, "{target}");
        loud(&format!("splits: {target}: ratio {:.1e}", prompt.max(step)));
        // The comparison can fail: one part computed from the other's weights.
        let vocab = 300_000;
        let mut wrong = got.logits;
        wrong.chunks_mut(vocab).for_each(|row| row.copy_within(..vocab - SECOND as usize, SECOND as usize));
        assert!(close("wrong part", &want.logits, &wrong, SAME).is_err());
    }
    if split == 0 {
        loud("splits: no device here, so nothing was split");
    }
}

/// The same with integers: 163 MB in 8 bits, of which a binding of 128 MiB holds the tokens 0 .. 246723. Scales and
/// biases lie behind the integers of each part.
#[test]
fn a_quantised_vocabulary_in_two_parts() {
    let config = String::from_utf8_lossy(CONFIG).replace("\"hidden_size\": 256", "\"hidden_size\": 512");
    let quantise = Some(Quant::new(8, 64));
    let options = LoadOptions { quantise, ..Default::default() };
    let second = (128 << 20) / (512 + 32);
    let prompt = [0, second - 1, second, 299_999];
    let outcome = |exec: Exec| {
        let loaded = block_on(Synthetic { seed: 5 }.model(exec, config.as_bytes(), options)).expect("model");
        let options = EngineOptions { context: 64, kv: Kv::F32, ..Default::default() };
        let mut engine = block_on(Engine::new(loaded, options)).expect("engine");
        let explain = engine.explain();
        let parts = explain.parts.iter().find(|part| part.part == Part::Head).map_or(0, |part| part.dispatches);
        engine.begin(0, &Sampling::default()).expect("begin");
        let logits = block_on(engine.logits(0, &prompt[..3])).expect("logits");
        let last = block_on(engine.logits(0, &prompt[3..])).expect("logits");
        (parts, [logits, last].concat(), engine.into_exec())
    };
    let (parts, want, _) = outcome(Exec::cpu());
    assert_eq!(parts, 1);
    for target in targets_in("quantised splits", &[Mode::Floor]) {
        let (parts, got, exec) = outcome(target.lend().expect("device").exec);
        target.give_back(exec);
        assert_eq!(parts, 2, "{target}");
        close(&format!("{target}"), &want, &got, SAME).expect("logits");
        // The comparison can fail: the second part computed from other lines.
        let mut wrong = got;
        wrong.chunks_mut(300_000).for_each(|row| row[second as usize..].rotate_left(1));
        assert!(close("rotated", &want, &wrong, SAME).is_err());
    }
}

/// More keys and values than one binding holds: the layer, the need and the limit are named.
fn too_long(label: &str, exec: Exec) {
    let most = exec.caps().max_binding.min(exec.caps().max_buffer);
    let loaded = load(exec, "mixed").expect("model");
    let options = EngineOptions { slots: 512, context: 1 << 24, ..Default::default() };
    match block_on(Engine::new(loaded, options)) {
        Err(Error::Limit { what, limit, need, have, next }) => {
            assert!(what.contains("layer 4 (attention)") && what.contains("512 slots"), "{label}: {what}");
            // Keys and values of 1 head of 64, two bytes each, for 8 meta tokens too.
            assert_eq!(need, 512 * ((1 << 24) + 8) * 2 * 64 * 2, "{label}");
            assert!(have >= most && have < need && limit.starts_with("max") && !next.is_empty(), "{label}: {have}");
        }
        other => panic!("{label}: {:?}", other.map(drop)),
    }
}

#[test]
fn memory_beyond_the_limit() {
    too_long("cpu", Exec::cpu());
    for target in targets_in("memory limits", &[Mode::Full, Mode::Floor]) {
        too_long(&target.to_string(), target.open().expect("device").exec);
    }
}

#[test]
fn options_out_of_range() {
    let base = EngineOptions::default();
    for (wrong, options) in [
        ("slots", EngineOptions { slots: 0, ..base }),
        ("slots", EngineOptions { slots: 513, ..base }),
        ("slots", EngineOptions { slots: u32::MAX, ..base }),
        ("context", EngineOptions { context: 0, ..base }),
        ("context", EngineOptions { context: u32::MAX, ..base }),
        ("prefill_rows", EngineOptions { prefill_rows: Some(0), ..base }),
        ("prefill_rows", EngineOptions { prefill_rows: Some(2049), ..base }),
    ] {
        let loaded = load(Exec::cpu(), "mixed").expect("model");
        match block_on(Engine::new(loaded, options)) {
            Err(Error::Parameter { name, why }) => assert!(name == wrong && why.contains("1 to"), "{name}: {why}"),
            other => panic!("{wrong}: {:?}", other.map(drop)),
        }
    }
}
