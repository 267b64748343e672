//! The golden models against the float64 reference, on the CPU and on every device.
#![forbid(unsafe_code)]

use nemoflash::{Engine, EngineOptions, Event, Exec, Kv, Piece, Sampling, Scan};
use nemoflash_tests::{
    Expected, GOLDEN, Mode, checkpoint, close, expected, load, load_files, loud, model_dir, targets, targets_in,
};
use pollster::block_on;
use std::collections::BTreeSet;
use std::ops::ControlFlow;

/// RMS ratio of logits in exact arithmetic: bf16 weights, f32 everything else. Measured: 8.4e-7 (CPU), 1.7e-6
/// (llvmpipe, SwiftShader, NVIDIA H200).
const EXACT: f64 = 5e-6;
/// RMS ratio of logits with a device's defaults: f16 keys and values, and products of many rows by cooperative matrices
/// where there are any. Measured without these: 5.8e-4 everywhere.
const DEFAULT: f64 = 2e-3;

fn engine(exec: Exec, name: &str, options: EngineOptions) -> Engine {
    let loaded = load(exec, name).unwrap_or_else(|e| panic!("{name}: {e}"));
    block_on(Engine::new(loaded, options)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// Logits of the prompt, cut into pieces of `piece` tokens; a piece of one token takes the decode kernels.
fn logits(engine: &mut Engine, ids: &[u32], piece: usize) -> Vec<f32> {
    engine.begin(0, &Sampling::default()).expect("begin");
    ids.chunks(piece).flat_map(|ids| block_on(engine.logits(0, ids)).expect("logits")).collect()
}

/// The greedy continuation by [`Engine::generate`].
fn greedy(engine: &mut Engine, ids: &[u32], tokens: usize) -> Vec<u32> {
    let mut out = vec![];
    engine.begin(0, &Sampling::default()).expect("begin");
    let mut on_event = |event| {
        if let Event::Token(token) = event {
            out.push(token);
        }
        ControlFlow::Continue(())
    };
    block_on(engine.generate(0, ids, tokens as u32, &mut on_event)).expect("generate");
    out
}

/// Tokens must be equal up to the first step whose gap is within the tolerance of the logits.
fn same_tokens(name: &str, want: &Expected, got: &[u32], tolerance: f64) -> Result<usize, String> {
    let mean = want.logits.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / want.logits.len() as f64;
    let sure =
        want.gap.iter().position(|gap| f64::from(*gap) < 2.0 * tolerance * mean.sqrt()).unwrap_or(want.gap.len());
    match (0..sure).find(|&i| got.get(i) != Some(&want.greedy[i])) {
        Some(i) => {
            Err(format!("{name}: token {i} is {:?}, wanted {} (gap {})", got.get(i), want.greedy[i], want.gap[i]))
        }
        None => Ok(sure),
    }
}

/// What is run of every model: keys and values, scan, tolerance, and the pieces that a prompt is cut into. The
/// second run is a device's defaults with the other scan.
const RUNS: [(Kv, Scan, f64, &[usize]); 2] =
    [(Kv::F32, Scan::Serial, EXACT, &[512, 7, 1]), (Kv::F16, Scan::Chunked, DEFAULT, &[512, 65])];

/// The first `most` prompts of some models. `cut` says which models' first prompt is also run in pieces: all of them on
/// the CPU, one of each family on devices, where software adapters take a second for a few tokens.
fn check(label: &str, mut exec: Exec, models: &[&str], cut: &[&str], most: usize) -> (Vec<String>, Exec) {
    let mut failures = vec![];
    let (mut worst, mut compared) = ([0f64; 2], 0);
    let rounds = exec.caps().coopmat;
    for (name, prompts) in GOLDEN.into_iter().filter(|(name, _)| models.contains(name)) {
        for ((kv, scan, tolerance, pieces), worst) in RUNS.into_iter().zip(&mut worst) {
            let tolerance = if rounds { DEFAULT } else { tolerance };
            let mut engine = engine(
                exec,
                name,
                EngineOptions { context: 300, kv, scan: Some(scan), prefill_rows: Some(512), ..Default::default() },
            );
            for (i, prefix) in prompts.iter().take(most).enumerate() {
                let want = expected(name, prefix);
                for piece in if i == 0 && cut.contains(&name) { pieces } else { &[512] } {
                    let case = format!("{label} {name}{prefix} {kv:?} {scan:?} pieces of {piece}");
                    match close(&case, &want.logits, &logits(&mut engine, &want.ids, *piece), tolerance) {
                        Ok(ratio) => (*worst, compared) = (worst.max(ratio), compared + 1),
                        Err(e) => failures.push(e),
                    }
                }
                let case = format!("{label} {name}{prefix} {kv:?} {scan:?} greedy");
                let got = greedy(&mut engine, &want.ids, want.greedy.len());
                failures.extend(same_tokens(&case, &want, &got, tolerance).err());
            }
            exec = engine.into_exec();
        }
    }
    loud(&format!(
        "golden: {label}: {compared} comparisons, worst RMS ratio {:.1e} exact, {:.1e} with f16 keys and values",
        worst[0], worst[1]
    ));
    // Two runs of each model compare one prompt at least.
    let least = 2 * models.len();
    if failures.is_empty() && compared < least {
        failures.push(format!("{label}: {compared} comparisons of {} models, fewer than {least}", models.len()));
    }
    (failures, exec)
}

/// The golden models' names.
const ALL: [&str; GOLDEN.len()] = {
    let mut names = [""; GOLDEN.len()];
    let mut at = 0;
    while at < names.len() {
        names[at] = GOLDEN[at].0;
        at += 1;
    }
    names
};

/// Folders of golden models that the list leaves out, and listed names that have no folder. `folders` are the names on disk.
fn unlisted(folders: &BTreeSet<String>, listed: &[&str]) -> Vec<String> {
    let listed: BTreeSet<String> = listed.iter().map(|name| name.to_string()).collect();
    folders.symmetric_difference(&listed).cloned().collect()
}

/// No golden model falls out of this suite: each folder is in the list, each listed model has a folder, and there are seven.
#[test]
fn every_golden_model_is_listed() {
    let golden = model_dir("mixed").parent().expect("a folder").to_owned();
    let entries = std::fs::read_dir(golden).expect("the golden folder").map(|entry| entry.expect("an entry"));
    let mut folders: BTreeSet<String> =
        entries.filter(|e| e.path().is_dir()).map(|e| e.file_name().to_string_lossy().into_owned()).collect();
    assert!(model_dir("fables").join("model.safetensors").is_file());
    folders.insert("fables".into());
    assert_eq!((unlisted(&folders, &ALL), ALL.len()), (vec![], 7));
    assert!(GOLDEN.iter().all(|(_, prompts)| !prompts.is_empty()), "a model without prompts is not checked");
    // Negative control: both ways.
    assert_eq!(unlisted(&folders, &ALL[1..]), [ALL[0]]);
    folders.remove("fables");
    assert_eq!(unlisted(&folders, &ALL), ["fables"]);
}

#[test]
fn cpu() {
    let (failures, _) = check("cpu", Exec::cpu(), &ALL, &ALL, 3);
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn devices() {
    let mut failures = vec![];
    let targets = targets("golden");
    for target in &targets {
        // Every model with everything that a GPU or the first adapter has. Another driver in software differs in the kernels
        // alone, and those the suite of operators runs there in every mode: one model of each family is enough. Where features
        // are denied, so is one of every block.
        let whole = target.adapter.kind != "cpu" || target.adapter.index == targets[0].adapter.index;
        let models = match target.mode {
            Mode::Coopmat | Mode::Full if whole => &ALL[..],
            Mode::Coopmat | Mode::Full => &["mixed", "qwen3"],
            Mode::Plain | Mode::Floor => &["mixed"],
        };
        let most = if target.adapter.kind == "cpu" { 1 } else { 3 };
        let exec = target.lend().expect("device").exec;
        let (found, exec) = check(&target.to_string(), exec, models, &["mixed", "qwen3"], most);
        failures.extend(found);
        target.give_back(exec);
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// Eight sequences in one step give what eight runs alone give, prefill rows and decode rows mixed.
fn eight_slots(label: &str, name: &str, exec: Exec) -> (Vec<Vec<u32>>, Exec) {
    let options = EngineOptions { slots: 8, context: 100, kv: Kv::F32, ..Default::default() };
    let mut engine = engine(exec, name, options);
    let ids: Vec<u32> = expected(name, "").ids.into_iter().cycle().take(110).collect();
    let prompts: Vec<&[u32]> = (0..8).map(|i| &ids[i * 9..i * 9 + 5 + 6 * i]).collect();
    let alone: Vec<Vec<u32>> = prompts.iter().map(|prompt| greedy(&mut engine, prompt, 12)).collect();
    let mut together = vec![vec![]; 8];
    for slot in 0..8 {
        engine.begin(slot as u32, &Sampling::default()).expect("begin");
    }
    // Slot i joins at step i: prompts and decode rows share steps.
    for step in 0..19 {
        let last: Vec<Option<u32>> = together.iter().map(|tokens: &Vec<u32>| tokens.last().copied()).collect();
        let pieces: Vec<Piece> = (0..8)
            .filter(|&i| step >= i && together[i].len() < 12)
            .map(|i| {
                let tokens = match &last[i] {
                    Some(token) => std::slice::from_ref(token),
                    None => prompts[i],
                };
                Piece { slot: i as u32, tokens, pick: true }
            })
            .collect();
        let slots: Vec<u32> = pieces.iter().map(|piece| piece.slot).collect();
        let picked = block_on(engine.step(&pieces)).expect("step");
        for (slot, token) in slots.into_iter().zip(picked) {
            together[slot as usize].push(token.expect("picked"));
        }
    }
    assert_eq!(alone, together, "{label} {name}");
    (together, engine.into_exec())
}

#[test]
fn eight_at_once() {
    let models = ["mixed", "qwen3"];
    let cpu = models.map(|name| eight_slots("cpu", name, Exec::cpu()).0);
    for target in targets_in("eight slots", &[Mode::Full]) {
        let label = target.to_string();
        let mut exec = target.lend().expect("device").exec;
        for (name, cpu) in models.iter().zip(&cpu) {
            let tokens;
            (tokens, exec) = eight_slots(&label, name, exec);
            assert_eq!(*cpu, tokens, "{label} {name}");
        }
        target.give_back(exec);
    }
}

/// Qwen3's windows (spec 8.3): with a window of 5, position 5 is the first that misses a key.
#[test]
fn a_window_of_keys() {
    let (config, bytes) = checkpoint("qwen3");
    let want = expected("qwen3", "");
    let vocab = want.logits.len() / want.ids.len();
    for piece in [512, 1] {
        let windowed = |sliding_window: u32| {
            let mut config: serde_json::Value = serde_json::from_slice(&config).expect("config");
            config["use_sliding_window"] = true.into();
            config["sliding_window"] = sliding_window.into();
            config["layer_types"] = vec!["sliding_attention"; 3].into();
            let (exec, file) = (Exec::cpu(), std::slice::from_ref(&bytes));
            let loaded = load_files(exec, config.to_string().as_bytes(), file, &mut || usize::MAX).expect("model");
            let options = EngineOptions { context: 100, kv: Kv::F32, ..Default::default() };
            logits(&mut block_on(Engine::new(loaded, options)).expect("engine"), &want.ids, piece)
        };
        close("all keys", &want.logits, &windowed(want.ids.len() as u32), EXACT).expect("logits");
        let (some, row) = (windowed(5), |position: usize| position * vocab..(position + 1) * vocab);
        close("no key missing", &want.logits[..5 * vocab], &some[..5 * vocab], EXACT).expect("logits");
        assert!(close("a key missing", &want.logits[row(5)], &some[row(5)], DEFAULT).is_err());
    }
}

/// Few rows of a prefill step hold neither a step nor logits back.
#[test]
fn rows_of_prefill_do_not_matter() {
    let want = expected("mixed", "");
    for rows in [1, 8, 9] {
        let options = EngineOptions { context: 300, kv: Kv::F32, prefill_rows: Some(rows), ..Default::default() };
        let mut engine = engine(Exec::cpu(), "mixed", options);
        close("logits", &want.logits, &logits(&mut engine, &want.ids, 512), EXACT).expect("logits");
        let got = greedy(&mut engine, &want.ids, want.greedy.len());
        same_tokens("tokens", &want, &got, EXACT).expect("tokens");
    }
}

/// The comparison can fail: one wrong weight, one wrong position, one wrong token are found.
#[test]
fn faults_are_found() {
    let want = expected("mixed", "");
    let mut engine = engine(Exec::cpu(), "mixed", EngineOptions { context: 300, kv: Kv::F32, ..Default::default() });
    let mut ids = want.ids.clone();
    ids[0] ^= 1;
    assert!(close("wrong token", &want.logits, &logits(&mut engine, &ids, 512), DEFAULT).is_err());
    let mut shifted = want.clone();
    shifted.greedy[0] ^= 1;
    let got = greedy(&mut engine, &want.ids, want.greedy.len());
    assert!(same_tokens("right", &want, &got, EXACT).expect("tokens") > 10, "too few sure tokens to prove anything");
    assert!(same_tokens("wrong token", &shifted, &got, EXACT).is_err());
}
