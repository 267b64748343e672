//! Quantised matrices: files of MLX's layout against an independent dequantiser, quantising while loading, broken
//! files, and models without a file.
#![forbid(unsafe_code)]

use half::{bf16, f16};
use nemoflash::{
    Config, Engine, EngineOptions, Error, Exec, Kv, LoadOptions, Loaded, Loader, Quant, Sampling, Synthetic,
};
use nemoflash_tests::{
    Mode, Random, Target, Tensors, checkpoint, close, file, load_files, load_options, loud, targets_in, tensors,
};
use pollster::block_on;
use safetensors::Dtype;
use serde_json::{Value, json};

/// RMS ratio of logits between a quantised matrix and the same numbers in bf16: both are exact up to the order of sums.
/// Measured: 1.7e-6 (llvmpipe, SwiftShader), 2.0e-6 (NVIDIA H100).
const SAME: f64 = 6e-6;
const PROMPT: [u32; 12] = [3, 200, 17, 91, 250, 8, 9, 10, 11, 100, 101, 33];

/// Logits of a prompt, of the same prompt token by token, and of the prompt on the path of many rows.
fn logits(loaded: Loaded) -> Vec<f32> {
    logits_and_exec(loaded).0
}

/// [`logits`], and the device for the next model.
fn logits_and_exec(loaded: Loaded) -> (Vec<f32>, Exec) {
    let options = EngineOptions { context: 96, kv: Kv::F32, ..Default::default() };
    let mut engine = block_on(Engine::new(loaded, options)).expect("engine");
    let mut out = vec![];
    for piece in [1, 12] {
        engine.begin(0, &Sampling::default()).expect("begin");
        for ids in PROMPT.chunks(piece) {
            out.extend(block_on(engine.logits(0, ids)).expect("logits"));
        }
    }
    engine.begin(0, &Sampling::default()).expect("begin");
    let long: Vec<u32> = PROMPT.iter().cycle().take(72).copied().collect();
    out.extend(block_on(engine.logits(0, &long)).expect("logits"));
    (out, engine.into_exec())
}

fn loaded(exec: Exec, config: &[u8], bytes: &[u8]) -> Vec<f32> {
    loaded_and_exec(exec, config, bytes).0
}

/// [`loaded`], and the device for the next model.
fn loaded_and_exec(exec: Exec, config: &[u8], bytes: &[u8]) -> (Vec<f32>, Exec) {
    let model = load_files(exec, config, &[bytes.to_vec()], &mut || usize::MAX).unwrap_or_else(|e| panic!("{e}"));
    logits_and_exec(model)
}

/// [`loaded`] on one of the devices of the suites.
fn loaded_on(target: &Target, config: &[u8], bytes: &[u8]) -> Vec<f32> {
    let (found, exec) = loaded_and_exec(target.lend().expect("device").exec, config, bytes);
    target.give_back(exec);
    found
}

/// A checkpoint with random quantised matrices, and the same in bf16 as MLX defines it: a line is a stream of bits, element
/// i begins at bit i·bits, and is `scale · q + bias` of group i/group. Scales are powers of two and biases whole multiples
/// of them, so that every number is a bf16.
fn twins(name: &str, bits: u32, group: usize, half: Dtype, seed: u64) -> (Vec<u8>, Vec<u8>, Vec<u8>) {
    mixed_twins(name, &|_| bits, group, half, seed)
}

/// [`twins`] with bits by the name of the matrix; config.json names those that have not as many as the embedding.
fn mixed_twins(
    name: &str,
    bits_of: &dyn Fn(&str) -> u32,
    group: usize,
    half: Dtype,
    seed: u64,
) -> (Vec<u8>, Vec<u8>, Vec<u8>) {
    let (config, bytes) = checkpoint(name);
    let usual = bits_of("model.embed_tokens.weight");
    let mut block = json!({ "group_size": group, "bits": usual });
    let mut random = Random::new(seed);
    let (mut quantised, mut plain) = (Tensors::new(), Tensors::new());
    for (name, (dtype, shape, bytes)) in tensors(&bytes) {
        if shape.len() != 2 || !name.ends_with(".weight") || shape[1] % group != 0 {
            quantised.insert(name.clone(), (dtype, shape.clone(), bytes.clone()));
            plain.insert(name, (dtype, shape, bytes));
            continue;
        }
        let (lines, cols, bits) = (shape[0], shape[1], bits_of(&name));
        let stem = name.trim_end_matches(".weight").to_owned();
        if bits != usual {
            block[&stem] = json!({ "group_size": group, "bits": bits });
        }
        let (mut words, mut scales, mut biases, mut numbers) = (vec![], vec![], vec![], vec![]);
        let write = |value: f32| match half {
            Dtype::F16 => f16::from_f32(value).to_le_bytes().to_vec(),
            Dtype::F32 => value.to_le_bytes().to_vec(),
            _ => bf16::from_f32(value).to_le_bytes().to_vec(),
        };
        for _ in 0..lines * cols / group {
            let middle = (1u32 << (bits - 1)) as f32;
            let scale = 2f32.powi(-4 - (bits as i32 - 4) - (random.bits() % 3) as i32);
            let bias = -scale * (middle - (random.bits() % 4) as f32);
            scales.extend(write(scale));
            biases.extend(write(bias));
            let mut packed = vec![0u8; group * bits as usize / 8];
            for i in 0..group {
                let q = random.bits() as u32 % (1 << bits);
                put_bits(&mut packed, i * bits as usize, bits, q);
                let number = scale * q as f32 + bias;
                assert_eq!(bf16::from_f32(number).to_f32(), number, "a number that bf16 holds");
                numbers.extend(bf16::from_f32(number).to_le_bytes());
            }
            words.extend(packed);
        }
        quantised.insert(name.clone(), (Dtype::U32, vec![lines, cols * bits as usize / 32], words));
        quantised.insert(format!("{stem}.scales"), (half, vec![lines, cols / group], scales));
        quantised.insert(format!("{stem}.biases"), (half, vec![lines, cols / group], biases));
        plain.insert(name, (Dtype::BF16, shape, numbers));
    }
    let mut config: Value = serde_json::from_slice(&config).expect("config");
    config["quantization"] = block;
    (config.to_string().into_bytes(), file(&quantised), file(&plain))
}

/// Writes a number of so many bits from a bit on.
fn put_bits(bytes: &mut [u8], at: usize, bits: u32, number: u32) {
    for bit in 0..bits as usize {
        bytes[(at + bit) / 8] |= ((number >> bit & 1) as u8) << ((at + bit) % 8);
    }
}

/// A checkpoint in one of MLX's float modes with random numbers and scales, and the same in bf16. `value` says what a
/// number's code means, `scale` what a group's does, of the random ones.
fn float_twins(name: &str, mode: &str, bits: u32, group: usize, seed: u64) -> (Vec<u8>, Vec<u8>, Vec<u8>) {
    const E2M1: [f32; 8] = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0];
    let e4m3 = |code: u32| match (code >> 3 & 15, (code & 7) as f32) {
        (0, mantissa) => mantissa / 512.0,
        (exponent, mantissa) => (1.0 + mantissa / 8.0) * 2f32.powi(exponent as i32 - 7),
    };
    let size = |code: u32| if bits == 4 { E2M1[code as usize % 8] } else { e4m3(code) };
    let value = |code: u32| if code >> (bits - 1) == 1 { -size(code) } else { size(code) };
    let (config, bytes) = checkpoint(name);
    let mut random = Random::new(seed);
    let (mut quantised, mut plain) = (Tensors::new(), Tensors::new());
    for (name, (dtype, shape, bytes)) in tensors(&bytes) {
        if shape.len() != 2 || !name.ends_with(".weight") || shape[1] % group != 0 {
            quantised.insert(name.clone(), (dtype, shape.clone(), bytes.clone()));
            plain.insert(name, (dtype, shape, bytes));
            continue;
        }
        let (mut words, mut scales, mut numbers) = (vec![], vec![], vec![]);
        for _ in 0..shape[0] * shape[1] / group {
            let code = if mode == "nvfp4" { 0x18 + random.bits() as u32 % 24 } else { 121 + random.bits() as u32 % 4 };
            let scale = if mode == "nvfp4" { e4m3(code) } else { 2f32.powi(code as i32 - 127) };
            scales.push(code as u8);
            let mut packed = vec![0u8; group * bits as usize / 8];
            for i in 0..group {
                // Of 8 bits, numbers below 4 of either sign; subnormal ones too.
                let code = random.bits() as u32 % (1 << bits);
                let code = if bits == 8 { (code & 0x80) | (code % 0x48) } else { code };
                put_bits(&mut packed, i * bits as usize, bits, code);
                let number = value(code) * scale;
                assert_eq!(bf16::from_f32(number).to_f32(), number, "a number that bf16 holds");
                numbers.extend(bf16::from_f32(number).to_le_bytes());
            }
            words.extend(packed);
        }
        let stem = name.trim_end_matches(".weight").to_owned();
        quantised.insert(name.clone(), (Dtype::U32, vec![shape[0], shape[1] * bits as usize / 32], words));
        quantised.insert(format!("{stem}.scales"), (Dtype::U8, vec![shape[0], shape[1] / group], scales));
        plain.insert(name, (Dtype::BF16, shape, numbers));
    }
    let mut config: Value = serde_json::from_slice(&config).expect("config");
    config["quantization"] = json!({ "mode": mode, "bits": bits, "group_size": group });
    (config.to_string().into_bytes(), file(&quantised), file(&plain))
}

#[test]
fn float_modes_are_what_mlx_means() {
    for (mode, bits, group) in [("mxfp4", 4, 32), ("nvfp4", 4, 16), ("mxfp8", 8, 32)] {
        let (config, quantised, plain) = float_twins("mixed", mode, bits, group, 7);
        let want = loaded(Exec::cpu(), &unquantised(&config), &plain);
        close(mode, &want, &loaded(Exec::cpu(), &config, &quantised), SAME).expect("on the CPU");
        let (_, other, _) = float_twins("mixed", mode, bits, group, 8);
        assert!(close("other numbers", &want, &loaded(Exec::cpu(), &config, &other), SAME).is_err());
        // In pieces, and with the scales in a file in front.
        let all = tensors(&quantised);
        let part = |scales: bool| {
            let of = all.iter().filter(|(name, _)| name.ends_with(".scales") == scales);
            file(&of.map(|(name, tensor)| (name.clone(), tensor.clone())).collect())
        };
        let model = load_files(Exec::cpu(), &config, &[part(true), part(false)], &mut || 999).expect("model");
        assert_eq!(loaded(Exec::cpu(), &config, &quantised), logits(model), "{mode} in pieces");
        // Every file of a mode without bits and group of its own is of the usual ones.
        let mut short: Value = serde_json::from_slice(&config).expect("config");
        short["quantization"] = json!({ "mode": mode, "group_size": null });
        assert_eq!(
            loaded(Exec::cpu(), short.to_string().as_bytes(), &quantised),
            loaded(Exec::cpu(), &config, &quantised)
        );
        // On a device, only groups of 16 are another form.
        let devices = if group == 16 { targets_in("float modes", &[Mode::Full]) } else { vec![] };
        for target in devices {
            let got = loaded_on(&target, &config, &quantised);
            close(&format!("{mode} on {target}"), &want, &got, SAME).expect("on a device");
        }
    }
}

const KINDS: [(u32, usize, Dtype); 9] = [
    (4, 64, Dtype::BF16),
    (8, 64, Dtype::BF16),
    (4, 32, Dtype::F16),
    (8, 128, Dtype::BF16),
    (2, 64, Dtype::BF16),
    (3, 32, Dtype::BF16),
    (5, 64, Dtype::F16),
    (6, 128, Dtype::BF16),
    (4, 64, Dtype::F32),
];

/// The config without the block, for the checkpoint in bf16.
fn unquantised(config: &[u8]) -> Vec<u8> {
    let mut config: Value = serde_json::from_slice(config).expect("config");
    config.as_object_mut().expect("object").remove("quantization");
    config.to_string().into_bytes()
}

#[test]
fn quantised_files_are_what_mlx_means() {
    for name in ["mixed", "variants"] {
        for (bits, group, half) in KINDS {
            let (config, quantised, plain) = twins(name, bits, group, half, 7);
            let case = format!("{name} {bits} bits, groups of {group}, {half:?}");
            let want = loaded(Exec::cpu(), &unquantised(&config), &plain);
            close(&format!("{case} on the CPU"), &want, &loaded(Exec::cpu(), &config, &quantised), SAME).expect(&case);
            // The comparison can fail: other integers give other logits.
            let (_, other, _) = twins(name, bits, group, half, 8);
            assert!(close("other integers", &want, &loaded(Exec::cpu(), &config, &other), SAME).is_err());
            // One mode of each device for each kind: the operators' suite has all of them.
            let mode = [Mode::Full, Mode::Plain, Mode::Floor][bits as usize / 4 % 3];
            // The other model is for the CPU alone; what the file packs in another way lies there like one of these.
            let seen = name == "mixed" && [4, 8].contains(&bits);
            let devices = if seen { targets_in("quant", &[mode]) } else { vec![] };
            for target in devices {
                let got = loaded_on(&target, &config, &quantised);
                let ratio = close(&format!("{case} on {target}"), &want, &got, SAME).expect(&case);
                loud(&format!("quant: {case} on {target}: ratio {ratio:.1e}"));
            }
        }
    }
}

/// Matrices of one stack with different bits, as mlx-lm's mixed recipes have it.
#[test]
fn formats_may_differ() {
    let bits_of = |name: &str| if name.contains("v_proj") || name.contains("down_proj") { 8 } else { 4 };
    let (config, quantised, plain) = mixed_twins("mixed", &bits_of, 64, Dtype::BF16, 7);
    let want = loaded(Exec::cpu(), &unquantised(&config), &plain);
    close("mixed bits", &want, &loaded(Exec::cpu(), &config, &quantised), SAME).expect("on the CPU");
    for target in targets_in("mixed bits", &[Mode::Full]) {
        let got = loaded_on(&target, &config, &quantised);
        close(&target.to_string(), &want, &got, SAME).expect("on a device");
    }
    // A gate and its up matrix are read by one kernel.
    let odd = |name: &str| if name.contains("gate_proj") { 8 } else { 4 };
    let (config, quantised, _) = mixed_twins("mixed", &odd, 64, Dtype::BF16, 7);
    let error = load_files(Exec::cpu(), &config, &[quantised], &mut || usize::MAX).map(drop).unwrap_err();
    assert!(error.to_string().contains("they must be alike"), "{error}");
}

/// Pieces of any length and any order of tensors in the file give the same.
#[test]
fn any_pieces_give_the_same_integers() {
    let (config, quantised, _) = twins("mixed", 4, 64, Dtype::BF16, 7);
    let want = loaded(Exec::cpu(), &config, &quantised);
    for (seed, most) in [(1, 9), (2, 1000), (3, 100_000)] {
        let mut random = Random::new(seed);
        let mut piece = || 1 + random.bits() as usize % most;
        let model = load_files(Exec::cpu(), &config, std::slice::from_ref(&quantised), &mut piece).expect("model");
        assert_eq!(want, logits(model), "pieces of at most {most}");
    }
    // Scales, biases and integers in files of their own, biases first.
    let all = tensors(&quantised);
    let part = |wanted: &dyn Fn(&str) -> bool| {
        file(&all.iter().filter(|(name, _)| wanted(name)).map(|(n, t)| (n.clone(), t.clone())).collect())
    };
    let files = [
        part(&|name| name.ends_with(".biases")),
        part(&|name| !name.ends_with(".biases") && !name.ends_with(".scales")),
        part(&|name| name.ends_with(".scales")),
    ];
    let model = load_files(Exec::cpu(), &config, &files, &mut || usize::MAX).expect("model");
    assert_eq!(want, logits(model), "in three files");
}

fn quant(bits: u32, group: u32) -> LoadOptions {
    LoadOptions { quantise: Some(Quant::new(bits, group)), ..Default::default() }
}

/// The largest errors that quantising may make of the logits of `mixed`, as RMS ratio. Measured: 0.028 and 0.44 (a tiny model
/// with random weights; `fables` loses far less, see docs/benchmarks.md).
const LOSS: [(u32, f64); 2] = [(8, 0.05), (4, 0.7)];

#[test]
fn quantising_while_loading() {
    let (config, bytes) = checkpoint("mixed");
    let want = loaded(Exec::cpu(), &config, &bytes);
    let mut losses = vec![];
    for (bits, most) in LOSS {
        let files = [bytes.clone()];
        let model = load_options(Exec::cpu(), &config, &files, quant(bits, 64), &mut || usize::MAX).expect("model");
        let whole = logits(model);
        let loss = close(&format!("{bits} bits"), &want, &whole, most).expect("little is lost");
        losses.push(loss);
        let mut random = Random::new(5);
        let mut piece = || 1 + random.bits() as usize % 3000;
        let model = load_options(Exec::cpu(), &config, &files, quant(bits, 64), &mut piece).expect("model");
        assert_eq!(whole, logits(model), "{bits} bits in pieces");
    }
    // The comparison can fail: 4 bits are not as good as 8.
    assert!(losses[1] > LOSS[0].1, "{losses:?}");
}

#[test]
fn refusals() {
    let (config, quantised, plain) = twins("mixed", 4, 64, Dtype::BF16, 7);
    let load = |config: &[u8], bytes: &[u8], options: LoadOptions| {
        load_options(Exec::cpu(), config, &[bytes.to_vec()], options, &mut || usize::MAX).map(drop)
    };
    let none = LoadOptions::default();
    let changed = |change: &dyn Fn(&mut Tensors)| {
        let mut all = tensors(&quantised);
        change(&mut all);
        file(&all)
    };
    let says = |result: Result<(), Error>, text: &str| {
        let error = result.expect_err(text).to_string();
        assert!(error.contains(text), "{error}\ndoes not contain: {text}");
    };
    assert!(load(&config, &quantised, none).is_ok());
    says(load(&unquantised(&config), &quantised, none), "`quantization` is missing");
    says(load(&config, &quantised, quant(4, 64)), "quantised already");
    says(load(&unquantised(&config), &plain, quant(3, 64)), "`bits`: 3 is not one of");
    says(load(&unquantised(&config), &plain, quant(4, 48)), "`group_size`: 48 is not one of");
    let q = "model.layers.4.self_attn.q_proj";
    let without = changed(&|all| drop(all.remove(&format!("{q}.biases"))));
    says(load(&config, &without, none), &format!("{q}.biases: missing"));
    // What is no projection has no scales, whatever the file says: not meta tokens, not a convolution.
    for name in ["model.memory_tokens", "model.layers.0.gla.q_conv1d"] {
        let odd = changed(&|all| {
            let stem = "model.embed_tokens";
            for what in ["scales", "biases"] {
                let mut tensor = all[&format!("{stem}.{what}")].clone();
                tensor.1 = vec![8, 2];
                tensor.2.truncate(32);
                all.insert(format!("{name}.{what}"), tensor);
            }
            if let Some(tensor) = all.get_mut(name) {
                *tensor = (Dtype::U32, vec![8, 16], vec![0; 8 * 16 * 4]);
            }
        });
        says(load(&config, &odd, none), &format!("{name}.scales: not part of this model"));
    }
    let other = changed(&|all| all.get_mut(&format!("{q}.biases")).expect("there").0 = Dtype::F16);
    says(load(&config, &other, none), &format!("{q}.biases: is F16, should be BF16"));
    let signed = changed(&|all| all.get_mut(&format!("{q}.weight")).expect("there").0 = Dtype::I32);
    says(load(&config, &signed, none), &format!("{q}.weight: is I32, should be U32"));
    let with = |key: &str, value: Value| {
        let mut config: Value = serde_json::from_slice(&config).expect("config");
        config["quantization"][key] = value;
        config.to_string().into_bytes()
    };
    says(load(&with("bits", json!(7)), &quantised, none), "`quantization.bits`: 7 is not supported in mode affine");
    says(load(&with("bits", json!(8)), &quantised, none), "model.embed_tokens.weight: has shape");
    says(load(&with("group_size", json!(-64)), &quantised, none), "`quantization.group_size`: -64 is not supported");
    says(load(&with("mode", json!("mxfp5")), &quantised, none), "`quantization.mode`: \"mxfp5\" is not supported");
    says(load(&with("mode", json!("mxfp4")), &quantised, none), "`quantization.group_size`: 64 is not supported");
    says(load(&with("quant_method", json!("gptq")), &quantised, none), "quant_method");
    says(load(&with(q, json!({ "bits": 8, "group_size": 64 })), &quantised, none), &format!("{q}.weight: has shape"));
}

/// NaN and infinity in any kind of tensor are named, with their place.
#[test]
fn numbers_that_are_none_are_named() {
    let nan = bf16::NAN.to_le_bytes();
    let spoilt = |bytes: &[u8], name: &str, at: usize, with: &[u8]| {
        let mut all = tensors(bytes);
        all.get_mut(name).unwrap_or_else(|| panic!("{name}")).2[at * with.len()..][..with.len()].copy_from_slice(with);
        file(&all)
    };
    let says = |config: &[u8], bytes: Vec<u8>, options: LoadOptions, text: &str| {
        let result = load_options(Exec::cpu(), config, &[bytes], options, &mut || 5000);
        let error = result.map(drop).expect_err(text).to_string();
        assert!(error.contains(text), "{error}\ndoes not contain: {text}");
    };
    let (config, bytes) = checkpoint("mixed");
    let bf16s = |name: &str| tensors(&bytes)[name].0 == Dtype::BF16;
    let none = LoadOptions::default();
    for (name, at) in [("model.embed_tokens.weight", 12_345), ("model.layers.1.ffn.up_proj.weight", 0)] {
        assert!(bf16s(name), "{name}");
        says(&config, spoilt(&bytes, name, at, &nan), none, &format!("tensor {name}: number {at} is NaN"));
        says(&config, spoilt(&bytes, name, at, &nan), quant(4, 32), &format!("tensor {name}: number {at} is NaN"));
    }
    let infinite = bf16::INFINITY.to_le_bytes();
    let name = "model.final_layernorm.weight";
    says(&config, spoilt(&bytes, name, 5, &infinite), none, &format!("tensor {name}: number 5 is inf"));
    let (config, quantised, _) = twins("mixed", 8, 64, Dtype::BF16, 7);
    let name = "model.layers.1.ffn.up_proj.scales";
    says(&config, spoilt(&quantised, name, 3, &nan), none, &format!("tensor {name}: number 3 is NaN"));
    // Floats of 8 bits have a code that is no number. Four of them are one U32 of the file.
    let (config, floats, _) = float_twins("mixed", "mxfp8", 8, 32, 7);
    let name = "model.layers.1.ffn.up_proj.weight";
    for at in [0, 1, 75] {
        says(&config, spoilt(&floats, name, at, &[0x7f]), none, &format!("tensor {name}: number {at} is NaN"));
    }
}

/// A model made on the device holds what its checkpoint would.
#[test]
fn synthetic_models_equal_their_files() {
    let (config, _) = checkpoint("mixed");
    let synthetic = Synthetic { seed: 3 };
    let mut all = Tensors::new();
    for tensor in Config::parse(&config).expect("config").tensors() {
        let len = tensor.shape.iter().product::<u64>() as usize;
        let mut words = vec![0; len.div_ceil(2)];
        synthetic.words(&tensor, 0, &mut words);
        let bytes = bytemuck::cast_slice::<u32, u8>(&words)[..2 * len].to_vec();
        all.insert(tensor.name, (Dtype::BF16, tensor.shape.iter().map(|d| *d as usize).collect(), bytes));
    }
    let want = loaded(Exec::cpu(), &config, &file(&all));
    let scale = (want.iter().map(|v| v * v).sum::<f32>() / want.len() as f32).sqrt();
    assert!((0.1..10.0).contains(&scale), "well scaled: {scale}");
    let made = |exec: Exec, seed, options| {
        let model = block_on(Synthetic { seed }.model(exec, &config, options)).expect("model");
        logits_and_exec(model)
    };
    assert_eq!(want, made(Exec::cpu(), 3, LoadOptions::default()).0);
    assert!(close("another seed", &want, &made(Exec::cpu(), 4, LoadOptions::default()).0, SAME).is_err());
    let (small, _) = made(Exec::cpu(), 3, quant(4, 64));
    for target in targets_in("synthetic", &[Mode::Floor]) {
        let (found, exec) = made(target.lend().expect("device").exec, 3, LoadOptions::default());
        close(&target.to_string(), &want, &found, SAME).expect("bf16");
        let (found, exec) = made(exec, 3, quant(4, 64));
        close(&target.to_string(), &small, &found, SAME).expect("4 bits");
        target.give_back(exec);
    }
}

#[test]
fn lengths_of_vocabulary_rows() {
    let (config, bytes) = checkpoint("mixed");
    let table = tensors(&bytes)["model.embed_tokens.weight"].clone();
    let numbers: Vec<bf16> = bytemuck::pod_collect_to_vec(&table.2);
    let lengths = numbers.chunks(table.1[1]).map(|row| row.iter().map(|v| v.to_f64().powi(2)).sum::<f64>().sqrt());
    let (low, high) = lengths.fold((f64::MAX, 0.0f64), |(low, high), l| (low.min(l), high.max(l)));
    let loaded = |options| {
        let model = load_options(Exec::cpu(), &config, std::slice::from_ref(&bytes), options, &mut || usize::MAX)
            .expect("model");
        let [a, b] = model.model().row_lengths.expect("weights were read");
        (a, b, logits(model))
    };
    let (a, b, divided) = loaded(LoadOptions::default());
    assert!(
        (f64::from(a) / low - 1.0).abs() < 1e-6 && (f64::from(b) / high - 1.0).abs() < 1e-6,
        "{a} {b} {low} {high}"
    );
    let (c, d, kept) = loaded(LoadOptions { keep_logits: true, ..Default::default() });
    assert_eq!((a, b), (c, d), "they are told in any case");
    let norms: Vec<f32> =
        numbers.chunks(table.1[1]).map(|row| row.iter().map(|v| v.to_f32().powi(2)).sum::<f32>().sqrt()).collect();
    let again: Vec<f32> = divided.iter().zip(norms.iter().cycle()).map(|(v, n)| v * n).collect();
    close("kept", &kept, &again, 1e-5).expect("divided or not");
    assert!(close("kept", &kept, &divided, 1e-2).is_err(), "the division does something");
    let _ = Loader::new(Exec::cpu(), &config, &[None]).expect("the short form loads as stored");
}
