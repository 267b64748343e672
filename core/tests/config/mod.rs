//! Configurations: the stored models resolve and their tables check; hostile ones are refused by
//! the name of the field.

mod foreign;
mod qwen3;

use nemoflash::checkpoint::{Dtype, Header};
use nemoflash::config::*;
use nemoflash::{Config, Error};
use serde_json::{Value, json};

const MODELS: [&str; 6] = [
    "tests/golden/mixed",
    "tests/golden/wide-heads",
    "tests/golden/variants",
    "tests/golden/attention-only",
    "tests/golden/qwen3",
    "models/fables",
];

fn load(model: &str) -> (Value, Header) {
    let path = |file| format!("{}/../{model}/{file}", env!("CARGO_MANIFEST_DIR"));
    let file = std::fs::read(path("model.safetensors")).unwrap();
    let len = Header::len(file[..8].try_into().unwrap()).unwrap() as usize;
    let header = Header::parse(&file[8..8 + len], Some(file.len() as u64)).unwrap();
    (serde_json::from_slice(&std::fs::read(path("config.json")).unwrap()).unwrap(), header)
}

fn parse(config: &Value) -> nemoflash::Result<Config> {
    Config::parse(config.to_string().as_bytes())
}

/// `config` with some keys replaced.
fn with(config: &Value, changes: Value) -> Value {
    let mut config = config.clone();
    for (key, value) in changes.as_object().unwrap() {
        config[key] = value.clone();
    }
    config
}

fn without(config: &Value, keys: &[&str]) -> Value {
    let mut config = config.clone();
    keys.iter().for_each(|k| drop(config.as_object_mut().unwrap().remove(*k)));
    config
}

fn lines(result: nemoflash::Result<()>) -> Vec<String> {
    match result {
        Err(Error::Tensors(lines)) => lines,
        other => panic!("{other:?}"),
    }
}

#[test]
fn stored_models_resolve_and_check() {
    for model in MODELS {
        let (json, header) = load(model);
        let config = parse(&json).unwrap();
        config.check(std::slice::from_ref(&header)).unwrap();
        assert_eq!(config.tensors().len(), header.tensors.len(), "{model}");
        // In two files, too.
        let (mut a, mut b) = (header.clone(), header);
        b.tensors.drain(..5);
        a.tensors.truncate(5);
        config.check(&[a, b]).unwrap();
    }
}

/// A layer by the names of its norm and its block.
fn layer(norm: &str, block: &str, kind: BlockKind) -> Layer {
    Layer { norm: format!("model.layers.{norm}.weight"), prefix: format!("model.layers.{block}."), kind }
}

#[test]
fn layers_are_what_the_config_says() {
    let config = parse(&load("models/fables").0).unwrap();
    assert_eq!((config.vocab_size, config.hidden_size, config.meta_tokens), (4096, 256, 32));
    assert_eq!((config.eos.as_slice(), config.bos, config.divide_logits), ([3].as_slice(), Some(1), true));
    assert!(config.tie_word_embeddings && config.rms_norm_eps == 1e-6 && config.max_position_embeddings == 4096);
    let ffn = BlockKind::Ffn(FfnDims { width: 768, act: Activation::Silu });
    let theta = 10_000.0 * 7f64.powf(64.0 / 62.0); // 2 * 4096 / 1024 - 1 = 7
    let expected = [
        layer("0.input_layernorm", "0.gla", BlockKind::DeltaNet(DeltaNetDims { heads: 4, head_dim: 64, d_conv: 4 })),
        layer("1.pre_ffn_layernorm", "1.ffn", ffn),
        layer(
            "2.input_layernorm",
            "2.mamba",
            BlockKind::Mamba2(Mamba2Dims { d_inner: 512, d_state: 128, heads: 8, head_dim: 64, d_conv: 4 }),
        ),
        layer(
            "4.input_layernorm",
            "4.self_attn",
            BlockKind::Attention(AttentionDims {
                heads: 4,
                kv_heads: 1,
                head_dim: 64,
                rope: Some(Rope { theta }),
                qk_norm_eps: None,
                window: None,
            }),
        ),
    ];
    assert_eq!(config.layers.len(), 12);
    for (layer, expected) in [0, 1, 2, 4].map(|i| &config.layers[i]).into_iter().zip(&expected) {
        assert_eq!(layer, expected);
    }

    let config = parse(&load("tests/golden/variants").0).unwrap();
    let BlockKind::Attention(global) = &config.layers[1].kind else { panic!() };
    let BlockKind::Attention(windowed) = &config.layers[5].kind else { panic!() };
    assert_eq!((global.window, windowed.window), (None, Some(16)));
    assert_eq!(global.qk_norm_eps, Some(1e-5));
    assert_eq!(global.rope, Some(Rope { theta: 10_000.0 }));
    assert_eq!(config.layers[2].kind, BlockKind::Ffn(FfnDims { width: 512, act: Activation::Relu2 }));
}

/// Spec 1.2 and 2.2: the published sizes, from a config made by the spec's table.
#[test]
fn published_models_have_their_published_sizes() {
    let (b1, b2) = (["deltanet", "f", "m2", "f"], ["a", "f", "m2", "f"]);
    let shapes: [(u32, u32, &[_], _, _); 2] = [
        (2048, 16, &[b1, b2, b1, b2, b1, b1], 155, 965_389_440),
        (3072, 24, &[b1, b2, b1, b2, b1, b2, b1, b1, b1], 231, 2_749_998_624u64),
    ];
    for (hidden, heads, blocks, tensors, parameters) in shapes {
        let config = json!({
            "architectures": ["NemotronFlashForCausalLM"], "model_type": "nemotron_flash", "hidden_size": hidden,
            "layer_types": blocks.concat(), "intermediate_size": 0, "ffn_expand_ratio": 3, "mlp_hidden_act": "silu",
            "num_attention_heads": heads, "num_key_value_heads": heads / 4, "attn_hidden_size": -1, "kq_head_dim": -1,
            "v_head_dim": -1, "kq_norm": "none", "rope": true, "rope_type": "ntk", "max_position_embeddings": 29000,
            "orig_max_position_embeddings": 4096, "num_memory_tokens": 256, "mamba_expand": 2, "mamba2_headdim": 64,
            "mamba_d_state": 128, "vocab_size": 131072, "tie_word_embeddings": true, "bos_token_id": 1,
            "eos_token_id": 2, "hidden_act": "silu", "layer_type": ["m", "a"], "use_cache": false
        });
        let config = parse(&config).unwrap();
        let inventory = config.tensors();
        assert_eq!(inventory.len(), tensors);
        assert_eq!(inventory.iter().map(|t| t.shape.iter().product::<u64>()).sum::<u64>(), parameters);
        let names: Vec<&str> = inventory[..5].iter().map(|t| t.name.as_str()).collect();
        assert_eq!(
            names,
            [
                "model.memory_tokens",
                "model.embed_tokens.weight",
                "model.final_layernorm.weight",
                "model.layers.0.input_layernorm.weight",
                "model.layers.0.gla.q_proj.weight"
            ]
        );
        let BlockKind::Attention(a) = &config.layers[4].kind else { panic!() };
        assert!((a.rope.unwrap().theta - 137_097.0).abs() < 1.0); // the example in spec 3.3
    }
}

#[test]
fn absent_dimensions_come_from_the_shapes() {
    let derived = [
        "vocab_size",
        "hidden_size",
        "num_memory_tokens",
        "ffn_expand_ratio",
        "mamba_expand",
        "mamba_d_state",
        "mamba2_headdim",
    ];
    for model in MODELS.into_iter().filter(|model| !model.ends_with("qwen3")) {
        let (json, header) = load(model);
        let tables = [header];
        let config = Config::resolve(without(&json, &derived).to_string().as_bytes(), &tables).unwrap();
        assert_eq!(config, parse(&json).unwrap());
        config.check(&tables).unwrap();
    }
    let (json, _) = load("models/fables");
    for key in derived.into_iter().filter(|&k| k != "num_memory_tokens") {
        assert_refused(&without(&json, &[key]), key);
    }
}

#[test]
fn a_mixer_with_an_ffn_of_its_own_is_two_layers() {
    let (json, _) = load("tests/golden/attention-only");
    let config = parse(&with(&json, json!({"intermediate_size": 256, "ffn_expand_ratio": null}))).unwrap();
    let blocks: Vec<&str> = config.layers.iter().map(|l| l.prefix.trim_start_matches("model.layers.")).collect();
    assert_eq!(blocks, ["0.self_attn.", "0.ffn.", "1.ffn.", "2.self_attn.", "2.ffn.", "3.ffn."]);
    assert_eq!(config.layers[1].norm, "model.layers.0.pre_ffn_layernorm.weight");
    assert!(config.layers.iter().all(|l| !matches!(&l.kind, BlockKind::Ffn(f) if f.width != 256)));
}

#[test]
fn every_mismatch_is_in_one_list() {
    let (json, header) = load("tests/golden/mixed");
    let config = parse(&json).unwrap();
    let position = |h: &Header, name: &str| h.tensors.iter().position(|t| t.name == name).unwrap();
    let mut broken = header.clone();
    broken.tensors.remove(position(&header, "model.layers.2.mamba.D"));
    let at = position(&broken, "model.layers.0.gla.q_proj.weight");
    broken.tensors[at].shape = vec![128, 64];
    let at = position(&broken, "model.memory_tokens");
    broken.tensors[at].dtype = Dtype::I8;
    let at = position(&broken, "model.layers.1.ffn.up_proj.weight");
    let twice = Header { tensors: vec![broken.tensors[at].clone()], ..broken.clone() };
    broken.tensors.push({
        let mut extra = broken.tensors[0].clone();
        extra.name = "model.layers.8.x\n.weight".into();
        extra
    });
    assert_eq!(
        lines(config.check(&[broken, twice])),
        [
            "model.memory_tokens: is I8, should be BF16 or F16 or F32",
            "model.layers.0.gla.q_proj.weight: has shape [128, 64], should have [128, 128]",
            "model.layers.2.mamba.D: missing (shape [8])",
            "model.layers.8.x\\n.weight: not part of this model",
            "model.layers.1.ffn.up_proj.weight: in more than one file",
        ]
    );
}

#[test]
fn a_config_of_another_model_is_named_by_its_keys() {
    let (json, header) = load("tests/golden/mixed");
    let cases = [
        (json!({"vocab_size": 511}), "`vocab_size` makes 511, but by the tensors it is 512"),
        (json!({"hidden_size": 256}), "`hidden_size` makes 256, but by the tensors it is 128"),
        (json!({"num_memory_tokens": 9}), "`num_memory_tokens` makes 9, but by the tensors it is 8"),
        (json!({"mamba_expand": 4}), "`mamba_expand` makes 512, but by the tensors it is 256"),
        (json!({"mamba_d_state": 32}), "`mamba_d_state` makes 32, but by the tensors it is 64"),
        (json!({"mamba2_headdim": 64}), "`mamba2_headdim` makes 4, but by the tensors it is 8"),
        (json!({"ffn_expand_ratio": 4}), "`ffn_expand_ratio` makes 512, but by the tensors it is 384"),
        (json!({"num_key_value_heads": 2}), "model.layers.4.self_attn.k_proj.weight: has shape [64, 128]"),
        (json!({"kq_norm": "rms"}), "model.layers.4.self_attn.q_norm.weight: missing"),
        (json!({"mlp_hidden_act": "relu2"}), "model.layers.1.ffn.gate_proj.weight: not part of this model"),
        (json!({"tie_word_embeddings": false}), "lm_head.weight: missing"),
        (json!({"num_memory_tokens": 0}), "model.memory_tokens: not part of this model"),
    ];
    for (change, expected) in cases {
        let lines = lines(parse(&with(&json, change)).unwrap().check(std::slice::from_ref(&header)));
        assert!(lines.iter().any(|l| l.contains(expected)), "{expected}: {lines:#?}");
    }
}

#[test]
fn long_lists_are_cut() {
    let (json, header) = load("models/fables");
    let config = parse(&json).unwrap();
    let list = lines(config.check(&[]));
    assert_eq!((list.len(), list[50].as_str()), (51, format!("and {} more", header.tensors.len() - 50).as_str()));
}

#[test]
fn a_tied_model_may_bring_its_head() {
    let (json, mut header) = load("tests/golden/mixed");
    let config = parse(&json).unwrap();
    let mut head = header.tensors.iter().find(|t| t.name == "model.embed_tokens.weight").unwrap().clone();
    head.name = "lm_head.weight".into();
    header.tensors.push(head);
    config.check(std::slice::from_ref(&header)).unwrap();
    parse(&with(&json, json!({"tie_word_embeddings": false}))).unwrap().check(std::slice::from_ref(&header)).unwrap();
    header.tensors.last_mut().unwrap().shape = vec![513, 128];
    assert_eq!(lines(config.check(&[header])), ["lm_head.weight: has shape [513, 128], should have [512, 128]"]);
}

#[track_caller]
fn assert_refused(config: &Value, expected: &str) {
    match parse(config) {
        Err(Error::Config { field, why }) => assert!(field == expected && why.len() < 1500, "{field}: {why}"),
        other => panic!("{expected} should be refused: {other:?}"),
    }
}

#[test]
fn hostile_values_are_refused_by_name() {
    let (config, _) = load("tests/golden/mixed");
    let odd = [json!("4"), json!(-2), json!(1.5), json!(true), json!([1]), json!({}), json!(1e300), json!(u64::MAX)];
    let whole = [
        "vocab_size",
        "hidden_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
        "intermediate_size",
        "mamba_d_state",
        "mamba_d_conv",
        "mamba2_headdim",
        "num_memory_tokens",
        "max_position_embeddings",
        "orig_max_position_embeddings",
        "sliding_window",
    ];
    for key in whole {
        for value in &odd {
            assert_refused(&with(&config, json!({key: value})), key);
        }
    }
    for key in ["ffn_expand_ratio", "mamba_expand", "rope_theta", "rms_norm_eps"] {
        for value in [json!("4"), json!(-2), json!(true), json!([1]), json!({}), json!(1e300), json!(0), json!(1e-300)]
        {
            assert_refused(&with(&config, json!({key: value})), key);
        }
    }
    for key in ["attn_hidden_size", "kq_head_dim", "v_head_dim"] {
        for value in [json!("4"), json!(1.5), json!(true), json!([1]), json!(u64::MAX), json!(1e300), json!(7)] {
            assert_refused(&with(&config, json!({key: value})), key);
        }
    }
    for key in ["rope", "tie_word_embeddings"] {
        for value in [json!("true"), json!(1), json!([]), json!({})] {
            assert_refused(&with(&config, json!({key: value})), key);
        }
    }
    for key in ["mlp_hidden_act", "kq_norm", "rope_type", "model_type"] {
        for value in [json!("x".repeat(100_000)), json!(""), json!(1), json!([]), json!(true)] {
            assert_refused(&with(&config, json!({key: value})), key);
        }
    }
}

#[test]
fn hostile_module_names_make_short_single_lines() {
    let block = json!({"quantization": {"bits": 4, "group_size": 64, "\u{1b}[31m\n".repeat(10_000): {"bits": 7}}});
    let Err(Error::Config { field, .. }) = parse(&with(&load(MODELS[0]).0, block)) else { panic!() };
    assert!(field.len() < 1500 && !field.contains(char::is_control), "{} bytes", field.len());
}

#[test]
fn unsupported_combinations_are_refused_by_name() {
    let (config, _) = load("tests/golden/mixed");
    let types = |n: usize| vec!["f"; n];
    let cases = [
        (json!({"num_hidden_layers": 1_000_000_000}), "num_hidden_layers"),
        (json!({"num_hidden_layers": 7}), "num_hidden_layers"),
        (json!({"layer_types": types(1025), "num_hidden_layers": null}), "layer_types"),
        (json!({"layer_types": []}), "layer_types"),
        (json!({"layer_types": null}), "layer_types"),
        (json!({"layer_types": "a"}), "layer_types"),
        (json!({"layer_types": ["a", "x"], "num_hidden_layers": 2}), "layer_types"),
        (json!({"layer_types": ["a", 1], "num_hidden_layers": 2}), "layer_types"),
        (json!({"layer_types": [["a"]], "num_hidden_layers": 1}), "layer_types"),
        (json!({"vocab_size": 0}), "vocab_size"),
        (json!({"hidden_size": 0}), "hidden_size"),
        (json!({"hidden_size": 132}), "hidden_size"),
        (json!({"hidden_size": 1 << 17}), "hidden_size"),
        (json!({"num_attention_heads": 0}), "num_attention_heads"),
        (json!({"num_attention_heads": 3}), "num_attention_heads"),
        (json!({"num_attention_heads": 32}), "num_attention_heads"), // head dimension 4
        (json!({"num_attention_heads": null}), "num_attention_heads"),
        (json!({"hidden_size": 1024, "num_attention_heads": 2}), "num_attention_heads"), // head dimension 512
        (json!({"num_key_value_heads": 0}), "num_key_value_heads"),
        (json!({"num_key_value_heads": 3}), "num_key_value_heads"),
        (json!({"num_key_value_heads": null}), "num_key_value_heads"),
        (json!({"num_attention_heads": 8, "num_key_value_heads": 3}), "num_key_value_heads"),
        (json!({"attn_hidden_size": 256}), "attn_hidden_size"),
        (json!({"kq_head_dim": 264}), "kq_head_dim"),
        (json!({"kq_head_dim": 32}), "v_head_dim"),
        (json!({"v_head_dim": 32}), "v_head_dim"),
        (json!({"ffn_expand_ratio": 0.9}), "ffn_expand_ratio"), // narrower than 128: nothing left
        (json!({"ffn_expand_ratio": null, "intermediate_size": 100}), "intermediate_size"),
        (json!({"mamba_expand": 0.01}), "mamba_expand"),
        (json!({"mamba_expand": 1.5, "hidden_size": 136}), "num_attention_heads"),
        (json!({"mamba_d_state": 0}), "mamba_d_state"),
        (json!({"mamba_d_state": 66}), "mamba_d_state"),
        (json!({"mamba_d_state": 260}), "mamba_d_state"),
        (json!({"mamba2_headdim": 0}), "mamba2_headdim"),
        (json!({"mamba2_headdim": 2}), "mamba2_headdim"),
        (json!({"mamba2_headdim": 48}), "mamba2_headdim"),
        (json!({"mamba2_headdim": 512}), "mamba2_headdim"),
        (json!({"mamba_d_conv": 3}), "mamba_d_conv"),
        (json!({"num_memory_tokens": 256}), "num_memory_tokens"),
        (json!({"rms_norm_eps": 0.5}), "rms_norm_eps"),
        (json!({"rope": null}), "rope"),
        (json!({"rope_theta": 0.5}), "rope_theta"),
        (json!({"rope_type": "dynamic_ntk"}), "rope_type"),
        (json!({"orig_max_position_embeddings": null}), "orig_max_position_embeddings"),
        (json!({"orig_max_position_embeddings": 0}), "orig_max_position_embeddings"),
        (json!({"orig_max_position_embeddings": 257}), "orig_max_position_embeddings"),
        (json!({"max_position_embeddings": 0}), "max_position_embeddings"),
        (json!({"sliding_window": 0}), "sliding_window"),
        (json!({"global_attn_idx": 4}), "global_attn_idx"),
        (json!({"global_attn_idx": [-1]}), "global_attn_idx"),
        (json!({"global_attn_idx": ["4"]}), "global_attn_idx"),
        (json!({"eos_token_id": [2, "3"]}), "eos_token_id"),
        (json!({"eos_token_id": vec![1; 65]}), "eos_token_id"),
        (json!({"bos_token_id": "<s>"}), "bos_token_id"),
        (json!({"rope_parameters": {"rope_theta": 5.0}}), "rope_parameters.rope_theta"),
        (json!({"rope_parameters": {"rope_type": "default"}}), "rope_parameters.rope_type"),
        (json!({"rope_parameters": {"full_attention": {}}}), "rope_parameters"),
        (json!({"architectures": ["LlamaForCausalLM"]}), "architectures"),
        (json!({"architectures": ["Qwen3ForCausalLM"]}), "model_type"),
        (json!({"architectures": null, "model_type": "qwen2"}), "model_type"),
        (json!({"architectures": [1]}), "architectures"),
        (json!({"architectures": "NemotronFlashForCausalLM"}), "architectures"),
        (json!({"architectures": null, "model_type": null}), "architectures"),
        (json!({"model_type": "llama"}), "model_type"),
    ];
    for (change, field) in cases {
        assert_refused(&with(&config, change), field);
    }
}

#[test]
fn files_that_are_not_configs_are_refused() {
    let (config, _) = load("tests/golden/mixed");
    let text = config.to_string();
    let files = [
        String::new(),
        "[]".into(),
        "null".into(),
        "<!doctype html>".into(),
        text[..text.len() / 2].into(),
        text.replace("1e-6", "1e999"),
        "{\"x\":".repeat(100_000),
        "[".repeat(1 << 19),
        format!("{text}{}", " ".repeat(1 << 20)),
        format!("{{\"{}\"", "\u{1b}".repeat(1000)),
    ];
    for file in files {
        let Err(Error::Config { field, why }) = Config::parse(file.as_bytes()) else { panic!("{file:.100}") };
        assert!(field == "(file)" && why.len() < 1500, "{field}: {why}");
    }
    assert!(Config::parse(b"{\"\xff\":1}").is_err());
}

/// Shapes are as hostile as the file: dimensions taken from them meet the same limits.
#[test]
fn hostile_shapes_are_refused_by_name() {
    let (config, header) = load("tests/golden/mixed");
    let cases: [(&str, &str, &[u64]); 12] = [
        ("vocab_size", "model.embed_tokens.weight", &[0, 128]),
        ("vocab_size", "model.embed_tokens.weight", &[1 << 40, 128]),
        ("hidden_size", "model.embed_tokens.weight", &[512, 129]),
        ("hidden_size", "model.embed_tokens.weight", &[512]),
        ("num_memory_tokens", "model.memory_tokens", &[u64::MAX, 128]),
        ("ffn_expand_ratio", "model.layers.1.ffn.up_proj.weight", &[0, 128]),
        ("ffn_expand_ratio", "model.layers.1.ffn.up_proj.weight", &[]),
        ("mamba_expand", "model.layers.2.mamba.out_proj.weight", &[128, 1 << 33]),
        ("mamba_d_state", "model.layers.2.mamba.conv1d.weight", &[3]),
        ("mamba_d_state", "model.layers.2.mamba.conv1d.weight", &[u64::MAX]),
        ("mamba2_headdim", "model.layers.2.mamba.A_log", &[0]),
        ("mamba2_headdim", "model.layers.2.mamba.A_log", &[u64::MAX]),
    ];
    for (key, tensor, shape) in cases {
        let mut header = header.clone();
        header.tensors.iter_mut().find(|t| t.name == tensor).unwrap().shape = shape.to_vec();
        match Config::resolve(without(&config, &[key]).to_string().as_bytes(), &[header]) {
            Err(Error::Config { field, .. }) => assert_eq!(field, key, "{tensor} {shape:?}"),
            other => panic!("{tensor} {shape:?}: {other:?}"),
        }
    }
}

/// Odd values in any combination, in the file and in the shapes, give a config or an error.
#[test]
fn nothing_panics() {
    let mut state = 0x6e65_6d6f_u64;
    let mut below = move |n: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 20) as usize % n
    };
    let numbers = [0, 1, 2, 3, 4, 5, 7, 8, 16, 64, 128, 255, 256, 1 << 16, 1 << 31, 1 << 32, u64::MAX];
    let words = ["a", "f", "m2", "deltanet", "rms", "ntk", "relu2", "full_attention", "x", ""];
    let models = MODELS.map(load);
    let mut resolved = 0;
    for round in 0..20_000 {
        let (mut config, mut header) = models[round % models.len()].clone();
        for _ in 0..1 + below(4) {
            let map = config.as_object_mut().unwrap();
            let key = map.keys().nth(below(map.len())).unwrap().clone();
            map[&key] = match below(7) {
                0 => json!(words[below(words.len())]),
                1 => json!(-(below(300) as i64)),
                2 => json!(below(1000) as f64 / 100.0),
                3 => json!(vec![words[below(words.len())]; below(5)]),
                4 => Value::Null,
                _ => json!(numbers[below(numbers.len())]),
            };
        }
        if below(2) == 0 {
            let at = below(header.tensors.len());
            header.tensors[at].shape = (0..below(4)).map(|_| numbers[below(numbers.len())]).collect();
        }
        if let Ok(config) = Config::resolve(config.to_string().as_bytes(), std::slice::from_ref(&header)) {
            resolved += 1;
            let _ = config.check(&[header]);
        }
    }
    assert!((1000..19_000).contains(&resolved), "{resolved}");
}
