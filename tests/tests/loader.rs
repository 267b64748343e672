//! The loader: any pieces, any float type and any shards give the same weights; broken files give an error.
#![forbid(unsafe_code)]

use half::{bf16, f16};
use nemoflash::{Engine, EngineOptions, Error, Exec, Kv, Loaded, Loader, Result, Sampling, Want};
use nemoflash_tests::{
    Mode, Random, Tensors, checkpoint, close, file, load, load_chunked, load_files, load_lens, targets_in, tensors,
};
use pollster::block_on;
use safetensors::Dtype;
use serde_json::{Value, json};

/// The bits of a short prompt's logits on the CPU.
fn logits(loaded: Loaded) -> Vec<u32> {
    logits_and_exec(loaded).0
}

/// [`logits`], and the device for the next model.
fn logits_and_exec(loaded: Loaded) -> (Vec<u32>, Exec) {
    let options = EngineOptions { context: 16, kv: Kv::F32, ..Default::default() };
    let mut engine = block_on(Engine::new(loaded, options)).expect("engine");
    engine.begin(0, &Sampling::default()).expect("begin");
    let logits = block_on(engine.logits(0, &[3, 200, 17, 91, 250])).expect("logits");
    (logits.into_iter().map(f32::to_bits).collect(), engine.into_exec())
}

/// [`logits`] of a checkpoint in one or more files.
fn logits_of(config: &[u8], files: &[Vec<u8>]) -> Vec<u32> {
    let model = load_files(Exec::cpu(), config, files, &mut || usize::MAX).unwrap_or_else(|e| panic!("{e}"));
    logits(model)
}

fn whole(name: &str) -> Vec<u32> {
    let model = load(Exec::cpu(), name).expect("model");
    logits(model)
}

/// The same file with every number written by `write`.
fn rewritten(bytes: &[u8], dtype: Dtype, write: impl Fn(bf16, &[usize]) -> Vec<u8>) -> Vec<u8> {
    let mut all = tensors(bytes);
    for (is, shape, bytes) in all.values_mut() {
        let numbers: Vec<bf16> = match *is {
            Dtype::BF16 => bytemuck::pod_collect_to_vec(bytes),
            Dtype::F32 => bytemuck::pod_collect_to_vec::<u8, f32>(bytes).into_iter().map(bf16::from_f32).collect(),
            other => panic!("{other:?} in a golden file"),
        };
        *bytes = numbers.into_iter().flat_map(|v| write(v, shape)).collect();
        *is = dtype;
    }
    file(&all)
}

#[test]
fn any_pieces_give_the_same_weights() {
    for name in ["mixed", "variants", "qwen3"] {
        let want = whole(name);
        let most: [(u64, usize); 6] = [(1, 7), (2, 100), (3, 5000), (4, 100_000), (5, 1 << 22), (6, usize::MAX)];
        for (seed, most) in most {
            let mut random = Random::new(seed);
            // Lengths of every magnitude: mostly about `most`, now and then a few bytes.
            let mut piece = || match random.bits() % 8 {
                0 => 1 + random.bits() as usize % 5,
                _ => 1 + random.bits() as usize % most,
            };
            let model = load_chunked(Exec::cpu(), name, &mut piece).expect("model");
            assert!(want == logits(model), "{name}: pieces of at most {most}");
        }
        let model = load_chunked(Exec::cpu(), name, &mut || 1).expect("model");
        assert!(want == logits(model), "{name}: byte by byte");
    }
}

/// The comparison can fail: one bit of one weight changes the logits.
#[test]
fn one_flipped_weight_is_seen() {
    for (model, step) in [("mixed", 5), ("qwen3", 1)] {
        let (config, bytes) = checkpoint(model);
        let mut all = tensors(&bytes);
        let names: Vec<String> = all.keys().cloned().collect();
        let want = logits_of(&config, &[file(&all)]);
        assert!(want == whole(model), "{model}: written again");
        for name in names.iter().step_by(step) {
            // The byte of a bf16 that holds half of its exponent, in the first number.
            all.get_mut(name).expect("tensor").2[1] ^= 1;
            assert!(want != logits_of(&config, &[file(&all)]), "{model}: {name}");
            all.get_mut(name).expect("tensor").2[1] ^= 1;
        }
    }
}

/// A head that is the embedding upside down turns every line of logits round, to the bit: whether the config says that it
/// is untied, or says that it is tied and is wrong (spec 2.1).
#[test]
fn an_untied_head_is_used() {
    let (config, bytes) = checkpoint("qwen3");
    let mut all = tensors(&bytes);
    let (dtype, shape, embedding) = all["model.embed_tokens.weight"].clone();
    let line = embedding.len() / shape[0];
    let turned: Vec<u8> = embedding.chunks(line).rev().flatten().copied().collect();
    all.insert("lm_head.weight".into(), (dtype, shape.clone(), turned));
    let files = [file(&all)];
    let mut untied: Value = serde_json::from_slice(&config).expect("config");
    untied["tie_word_embeddings"] = json!(false);
    let check = |label: &str, exec: Exec| {
        let run = |exec: Exec, config: &[u8], files: &[Vec<u8>]| {
            logits_and_exec(load_files(exec, config, files, &mut || usize::MAX).expect("model"))
        };
        let (tied, exec) = run(exec, &config, std::slice::from_ref(&bytes));
        let turned: Vec<u32> = tied.chunks(shape[0]).flat_map(|row| row.iter().rev().copied()).collect();
        let (found, exec) = run(exec, untied.to_string().as_bytes(), &files);
        assert!(found == turned, "{label}");
        let (found, exec) = run(exec, &config, &files);
        assert!(found == turned, "{label}: the config says tied");
        assert!(turned != tied, "{label}: the head makes a difference");
        exec
    };
    check("cpu", Exec::cpu());
    for target in targets_in("untied head", &[Mode::Full]) {
        target.give_back(check(&target.to_string(), target.lend().expect("device").exec));
    }
}

/// A head that is the tied embedding once more takes no memory; another one does, and it is said. In pieces of any size.
#[test]
fn a_tied_head_is_compared() {
    let (config, bytes) = checkpoint("qwen3");
    let mut all = tensors(&bytes);
    let (dtype, shape, embedding) = all["model.embed_tokens.weight"].clone();
    let mut random = Random::new(11);
    let mut piece = || 1 + random.bits() as usize % 20_000;
    let alone = load(Exec::cpu(), "qwen3").expect("model").model().bytes();
    for (byte, other) in [(None, false), (Some(0), true), (Some(embedding.len() - 2), true)] {
        let mut head = embedding.clone();
        if let Some(byte) = byte {
            head[byte] ^= 1;
        }
        all.insert("lm_head.weight".into(), (dtype, shape.clone(), head));
        let loaded = load_files(Exec::cpu(), &config, &[file(&all)], &mut piece).expect("model");
        let notes = loaded.notes().join("\n");
        assert_eq!(loaded.model().config.tie_word_embeddings, !other);
        assert_eq!((loaded.model().bytes() > alone, notes.contains("lm_head.weight")), (other, other), "{notes}");
        assert_eq!(logits(loaded) != whole("qwen3"), other);
    }
}

/// What no model reads is left out and named. What might count is refused.
#[test]
fn unread_tensors_are_left_out() {
    let (config, bytes) = checkpoint("qwen3");
    let with = |name: &str, shape: &[usize], dtype: Dtype| {
        let mut all = tensors(&bytes);
        let len = shape.iter().product::<usize>() * dtype.bitsize() / 8;
        all.insert(name.into(), (dtype, shape.to_vec(), vec![1; len]));
        load_files(Exec::cpu(), &config, &[file(&all)], &mut || 1000)
    };
    let unread: [(&str, &[usize], Dtype); 6] = [
        ("model.layers.0.self_attn.rotary_emb.inv_freq", &[4], Dtype::F32),
        ("model.rotary_emb.original_inv_freq", &[4], Dtype::F64),
        ("model.layers.1.self_attn.q_proj.bias", &[0], Dtype::BF16),
        ("scalar", &[], Dtype::I64),
        ("vision.patch.weight", &[3, 5], Dtype::F16),
        ("a.position_ids", &[1, 7], Dtype::I64),
    ];
    for (name, shape, dtype) in unread {
        let loaded = with(name, shape, dtype).expect(name);
        assert_eq!(loaded.notes(), [format!("1 tensor of the checkpoint is not used: {name}")]);
        assert!(logits(loaded) == whole("qwen3"), "{name}");
    }
    for name in ["model.layers.1.self_attn.q_proj.bias", "model.layers.9.mlp.up_proj.weight", "lm_head.bias"] {
        match with(name, &[8], Dtype::BF16).map(drop) {
            Err(Error::Tensors(lines)) => assert_eq!(lines, [format!("{name}: not part of this model")]),
            other => panic!("{name}: {other:?}"),
        }
    }
}

/// Numbers as they are stored: in f16 and f32 what bf16 holds gives the same logits, and what it does not hold is kept.
#[test]
fn any_float_type_is_kept() {
    // RMS ratio: the same numbers summed in another order. Measured: at most 6.9e-7 (CPU, llvmpipe, SwiftShader).
    const SAME: f64 = 2e-6;
    for name in ["mixed", "variants"] {
        let (config, bytes) = checkpoint(name);
        // What is stored as F32 is rounded here too, so that every version holds the same numbers.
        let want = logits_of(&config, &[rewritten(&bytes, Dtype::BF16, |v, _| v.to_le_bytes().to_vec())]);
        let numbers = |words: &[u32]| words.iter().map(|&word| f32::from_bits(word)).collect::<Vec<_>>();
        let same = |label: &str, want: &[u32], got: &[u32]| {
            close(&format!("{name}: {label}"), &numbers(want), &numbers(got), SAME)
        };
        let f32s = rewritten(&bytes, Dtype::F32, |v, _| v.to_f32().to_le_bytes().to_vec());
        let kept = logits_of(&config, std::slice::from_ref(&f32s));
        same("F32", &want, &kept).expect("as bf16");
        let mut random = Random::new(9);
        let mut piece = || 1 + random.bits() as usize % 1000;
        let model = load_files(Exec::cpu(), &config, std::slice::from_ref(&f32s), &mut piece).expect("model");
        assert!(kept == logits(model), "{name}: F32 in pieces");

        // Numbers that f16 holds and bf16 does not: in F32 they are the same, and rounded to bf16 they are not.
        let as_f16 = |v: bf16| f16::from_f32(v.to_f32() * 1.001);
        let f16s = rewritten(&bytes, Dtype::F16, |v, _| as_f16(v).to_le_bytes().to_vec());
        let wide = rewritten(&bytes, Dtype::F32, |v, _| as_f16(v).to_f32().to_le_bytes().to_vec());
        let rounded = rewritten(&bytes, Dtype::BF16, |v, _| bf16::from_f32(as_f16(v).to_f32()).to_le_bytes().to_vec());
        let halves = logits_of(&config, std::slice::from_ref(&f16s));
        same("F16 and F32", &halves, &logits_of(&config, std::slice::from_ref(&wide))).expect("alike");
        assert!(same("rounded", &halves, &logits_of(&config, &[rounded])).is_err(), "{name}: F16 is kept");
        for target in targets_in("float types", &[Mode::Full]) {
            let mut exec = target.lend().expect("device").exec;
            for (label, file) in [("F16", &f16s), ("F32", &wide)] {
                let model = load_files(exec, &config, std::slice::from_ref(file), &mut || usize::MAX).expect("model");
                let found;
                (found, exec) = logits_and_exec(model);
                same(&format!("{label} on {target}"), &halves, &found).expect("on a device");
            }
            target.give_back(exec);
        }
    }
}

/// The tensors of `mixed`, dealt to three files.
fn shards(bytes: &[u8]) -> [Tensors; 3] {
    let mut out: [Tensors; 3] = Default::default();
    for (i, (name, tensor)) in tensors(bytes).into_iter().enumerate() {
        out[i * 7 % 3].insert(name, tensor);
    }
    out
}

#[test]
fn shards_give_the_same_weights() {
    let (config, bytes) = checkpoint("mixed");
    let want = whole("mixed");
    let mut files: Vec<Vec<u8>> = shards(&bytes).iter().map(file).collect();
    assert!(want == logits_of(&config, &files));
    files.rotate_left(1);
    files.insert(1, file(&Tensors::new()));
    assert!(want == logits_of(&config, &files), "in another order, and with a file without tensors");

    // Headers of all files come first, then the data of one file after the other.
    let mut loader = Loader::new(Exec::cpu(), &config, &vec![None; files.len()]).expect("loader");
    let mut order = vec![];
    while let Some(Want { file, offset }) = loader.wants() {
        order.push(file);
        let rest = &files[file][offset as usize..];
        block_on(loader.push(rest)).expect("push");
    }
    order.dedup();
    assert_eq!(order, [0, 1, 2, 3, 0, 2, 3]);
    let model = block_on(loader.finish()).expect("model");
    assert!(want == logits(model));
}

fn refused(config: &[u8], files: &[Vec<u8>], lens: &[Option<u64>]) -> Error {
    match load_lens(Exec::cpu(), config, files, lens, &mut || usize::MAX) {
        Ok(_) => panic!("a broken checkpoint was loaded"),
        Err(e) => e,
    }
}

/// The text of an [`Error::Checkpoint`].
fn why(error: Error) -> String {
    match error {
        Error::Checkpoint { why } => why,
        other => panic!("not a checkpoint error: {other}"),
    }
}

/// The JSON of a file's header and the data behind it.
fn split(bytes: &[u8]) -> (Value, Vec<u8>) {
    let end = 8 + u64::from_le_bytes(bytes[..8].try_into().expect("8 bytes")) as usize;
    (serde_json::from_slice(&bytes[8..end]).expect("header"), bytes[end..].to_vec())
}

fn join(header: &[u8], data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header, data].concat()
}

#[test]
fn truncated_files_are_refused() {
    let (config, bytes) = checkpoint("mixed");
    let (header, data) = split(&bytes);
    let start = bytes.len() - data.len();
    let mut ends = vec![0, 1, 7, 8, 9, 10, start / 2, start - 1, start, start + 1, bytes.len() - 1];
    for entry in header.as_object().expect("object").values() {
        if let Some(begin) = entry["data_offsets"][0].as_u64() {
            ends.extend([start + begin as usize, start + begin as usize + 1]);
        }
    }
    let mut random = Random::new(1);
    ends.extend((0..200).map(|_| random.bits() as usize % bytes.len()));
    for end in ends {
        let cut = vec![bytes[..end].to_vec()];
        let told = why(refused(&config, &cut, &[Some(end as u64)]));
        let untold = why(refused(&config, &cut, &[None]));
        let lied = why(refused(&config, &cut, &[Some(bytes.len() as u64)]));
        let place = format!("file 1 of 1 ends at byte {end}, in ");
        assert!(untold.starts_with(&place) && lied.starts_with(&place), "{end}: {untold}, {lied}");
        let early = if end < start { told.starts_with(&place) } else { told.contains("its header promises") };
        assert!(early, "{end}: {told}");
    }
}

#[test]
fn broken_headers_are_refused() {
    let (config, bytes) = checkpoint("mixed");
    let (header, data) = split(&bytes);
    let text = serde_json::to_vec(&header).expect("header");
    let len = |len: u64| [&len.to_le_bytes(), &text[..], &data].concat();
    let edit = |key: &str, value: Value| {
        let mut header = header.clone();
        header["model.embed_tokens.weight"][key] = value;
        join(&serde_json::to_vec(&header).expect("header"), &data)
    };
    let double = format!("{{\"__metadata__\":{{}},{0},{0}}}", &String::from_utf8_lossy(&text)[1..text.len() - 1]);
    let cases = [
        ("no length", len(0)),
        ("length of 1", len(1)),
        ("longest length", len(u64::MAX)),
        ("too long a length", len(100_000_001)),
        ("a length past the end", len(bytes.len() as u64)),
        ("a short length", len(text.len() as u64 - 1)),
        ("a long length", len(text.len() as u64 + 1)),
        ("a pointer", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n".to_vec()),
        ("a page", b"<!doctype html><title>404</title>".to_vec()),
        ("a zip file", b"PK\x03\x04\0\0\0\0\0\0\0\0\0\0".to_vec()),
        ("zeros", vec![0; 4096]),
        ("not JSON", join(b"{\"a\":", &data)),
        ("a list", join(b"[1, 2]", &data)),
        ("nested", join(&[b'{'; 100_000], &data)),
        ("tensors twice", join(double.as_bytes(), &data)),
        ("an overlap", edit("data_offsets", json!([1, 131_073]))),
        ("offsets past the end", edit("data_offsets", json!([u64::MAX - 131_072, u64::MAX]))),
        ("offsets back to front", edit("data_offsets", json!([131_072, 0]))),
        ("negative offsets", edit("data_offsets", json!([-1, 5]))),
        ("another length", edit("shape", json!([511, 128]))),
        ("a product beyond u64", edit("shape", json!([1u64 << 40, 1u64 << 40]))),
        ("an unknown type", edit("dtype", json!("BF17"))),
        ("a wider type", edit("dtype", json!("F32"))),
    ];
    for (name, bytes) in cases {
        for told in [None, Some(bytes.len() as u64)] {
            let why = why(refused(&config, std::slice::from_ref(&bytes), &[told]));
            assert!(!why.is_empty() && why.len() < 1000, "{name}: {why}");
        }
    }
    // A right file of a wrong kind.
    for (key, value) in [("dtype", json!("I16")), ("dtype", json!("U16")), ("shape", json!([128, 512]))] {
        match refused(&config, &[edit(key, value)], &[None]) {
            Error::Tensors(lines) => {
                assert!(lines.iter().any(|l| l.contains("model.embed_tokens.weight")), "{lines:?}")
            }
            other => panic!("{other}"),
        }
    }
}

/// Random faults in the header: an error or a model, never a panic.
#[test]
fn random_headers_do_no_harm() {
    let (config, bytes) = checkpoint("mixed");
    let (header, data) = split(&bytes);
    let start = bytes.len() - data.len();
    assert!(header.is_object());
    let (mut random, mut refusals) = (Random::new(2), 0);
    for _ in 0..300 {
        let mut broken = bytes.clone();
        for _ in 0..1 + random.bits() % 3 {
            let at = random.bits() as usize % start;
            broken[at] = match random.bits() % 3 {
                0 => random.bits() as u8,
                1 => broken[at] ^ 1 << (random.bits() % 8),
                _ => b"0123456789,:[]{}\"\\ "[random.bits() as usize % 19],
            };
        }
        let told = (random.bits() % 2 == 0).then_some(broken.len() as u64);
        match load_lens(Exec::cpu(), &config, &[broken], &[told], &mut || usize::MAX) {
            Ok(_) => {}
            Err(Error::Checkpoint { .. } | Error::Tensors(_)) => refusals += 1,
            Err(other) => panic!("{other}"),
        }
    }
    assert!(refusals > 200, "{refusals}");
}

#[test]
fn wrong_tensors_are_listed_together() {
    let (config, bytes) = checkpoint("mixed");
    let [mut a, mut b, c] = shards(&bytes);
    let missing = a.keys().find(|name| name.contains("layers.3.")).expect("a layer's tensor").clone();
    a.remove(&missing);
    let (twice, tensor) = c.first_key_value().expect("a tensor");
    b.insert(twice.clone(), tensor.clone());
    b.insert("model.layers.0.spare\nweight".into(), (Dtype::BF16, vec![1], vec![0; 2]));
    let turned = b.iter_mut().find(|(name, t)| name.contains("ffn") && t.1.len() == 2).expect("a matrix");
    turned.1.1.reverse();
    let turned = turned.0.clone();
    let whole = b.iter_mut().find(|(name, t)| t.1.len() == 1 && **name != turned).expect("a vector");
    (whole.1.0, whole.1.2) = (Dtype::I8, vec![0; whole.1.1[0]]);
    let whole = whole.0.clone();
    match refused(&config, &[file(&a), file(&b), file(&c)], &[None; 3]) {
        Error::Tensors(lines) => {
            let has = |name: &str, what: &str| {
                assert!(lines.iter().any(|l| l.contains(name) && l.contains(what)), "{name} {what}: {lines:#?}");
            };
            has(&missing, "missing");
            has(twice, "in more than one file");
            has("model.layers.0.spare\\nweight", "not part of this model");
            has(&turned, "has shape");
            has(&whole, "is I8");
        }
        other => panic!("{other}"),
    }
}

#[test]
fn a_config_that_disagrees_is_refused() {
    let (config, bytes) = checkpoint("mixed");
    let config: Value = serde_json::from_slice(&config).expect("config");
    let edit = |key: &str, value: Value| {
        let mut config = config.clone();
        config[key] = value;
        refused(config.to_string().as_bytes(), std::slice::from_ref(&bytes), &[None])
    };
    for (key, value) in [
        ("vocab_size", json!(513)),
        ("hidden_size", json!(256)),
        ("num_memory_tokens", json!(9)),
        ("mamba_d_state", json!(32)),
        ("mamba_expand", json!(4)),
        ("mamba2_headdim", json!(64)),
        ("ffn_expand_ratio", json!(4.0)),
        ("num_key_value_heads", json!(2)),
        ("tie_word_embeddings", json!(false)),
        ("kq_norm", json!("rms")),
        ("mlp_hidden_act", json!("relu2")),
    ] {
        let error = edit(key, value);
        assert!(matches!(error, Error::Tensors(_)), "{key}: {error}");
    }
    for (key, value) in [
        ("vocab_size", json!(-1)),
        ("hidden_size", json!("wide")),
        ("layer_types", json!(["a", "no such block"])),
        ("model_type", json!("llama")),
        ("architectures", json!(["LlamaForCausalLM"])),
    ] {
        let error = edit(key, value);
        assert!(matches!(error, Error::Config { .. }), "{key}: {error}");
    }
    for text in ["", "{", "[]", "null"] {
        let error = refused(text.as_bytes(), std::slice::from_ref(&bytes), &[None]);
        assert!(matches!(error, Error::Config { .. }), "{text}: {error}");
    }
}

#[test]
fn odd_pushes_do_no_harm() {
    let (config, bytes) = checkpoint("mixed");
    assert!(matches!(Loader::new(Exec::cpu(), &config, &[]), Err(Error::Checkpoint { .. })));
    let nothing = block_on(Loader::new(Exec::cpu(), &config, &[None]).expect("loader").finish());
    assert!(why(nothing.map(drop).expect_err("nothing came")).contains("ends at byte 0, in its header"));

    // Empty pieces change nothing, and what comes after the end is not looked at.
    let mut loader = Loader::new(Exec::cpu(), &config, &[None]).expect("loader");
    let (mut last, mut random) = (0, Random::new(3));
    while let Some(want) = loader.wants() {
        let progress = block_on(loader.push(&[])).expect("empty");
        assert_eq!((progress.taken, loader.wants()), (0, Some(want)));
        let rest = &bytes[want.offset as usize..];
        let piece = &rest[..rest.len().min(1 + random.bits() as usize % 50_000)];
        let progress = block_on(loader.push(piece)).expect("push");
        assert!(progress.taken > 0 && progress.done >= last && progress.done <= progress.total.max(last));
        last = progress.done;
    }
    let after = block_on(loader.push(&[7; 100])).expect("after the end");
    assert_eq!((after.taken, after.done, loader.wants()), (100, after.total, None));
    let model = block_on(loader.finish()).expect("model");
    assert!(logits(model) == whole("mixed"));
    let long = [&bytes[..], &[7]].concat();
    let len = long.len() as u64;
    assert!(why(refused(&config, &[long], &[Some(len)])).contains("its header promises"));

    // A loader that has refused its files goes on refusing.
    let mut wrong: Value = serde_json::from_slice(&config).expect("config");
    wrong["vocab_size"] = json!(511);
    let mut loader = Loader::new(Exec::cpu(), wrong.to_string().as_bytes(), &[None]).expect("loader");
    let mut refusals = 0;
    for at in [0, 8, 0, 8, 0, 8] {
        let pushed: Result<_> = block_on(loader.push(&bytes[at..]));
        refusals += usize::from(pushed.is_err());
    }
    assert!(refusals == 5, "{refusals}");
    assert!(block_on(loader.finish()).is_err());
}
