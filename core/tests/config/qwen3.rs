//! Configurations of Qwen3.

use super::*;

const GOLDEN: &str = "tests/golden/qwen3";

/// Spec 8.1: the published configs, from the spec's table.
fn published(hidden: u32) -> Value {
    json!({
        "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "hidden_size": hidden,
        "intermediate_size": 3 * hidden, "num_hidden_layers": 28, "num_attention_heads": 16,
        "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151_936, "tie_word_embeddings": true,
        "rope_theta": 1_000_000, "rope_scaling": null, "rms_norm_eps": 1e-6, "hidden_act": "silu",
        "attention_bias": false, "max_position_embeddings": 40_960, "bos_token_id": 151_643,
        "eos_token_id": 151_645, "sliding_window": null, "use_sliding_window": false, "max_window_layers": 28,
        "attention_dropout": 0.0, "initializer_range": 0.02, "torch_dtype": "bfloat16", "use_cache": true
    })
}

#[test]
fn published_models_have_their_published_sizes() {
    for (hidden, parameters) in [(1024, 596_049_920), (2048, 1_720_574_976u64)] {
        let config = parse(&published(hidden)).unwrap();
        assert_eq!((config.vocab_size, config.hidden_size, config.meta_tokens), (151_936, hidden, 0));
        assert_eq!(
            (config.eos.as_slice(), config.bos, config.divide_logits),
            ([151_645].as_slice(), Some(151_643), false)
        );
        assert!(config.tie_word_embeddings && config.rms_norm_eps == 1e-6 && config.max_position_embeddings == 40_960);
        assert_eq!(config.layers.len(), 56);
        let attention = AttentionDims {
            heads: 16,
            kv_heads: 8,
            head_dim: 128,
            rope: Some(Rope { theta: 1e6 }),
            qk_norm_eps: Some(1e-6),
            window: None,
        };
        let ffn = FfnDims { width: 3 * hidden, act: Activation::Silu };
        assert_eq!(config.layers[54], layer("27.input_layernorm", "27.self_attn", BlockKind::Attention(attention)));
        assert_eq!(config.layers[55], layer("27.post_attention_layernorm", "27.mlp", BlockKind::Ffn(ffn)));

        let inventory = config.tensors();
        assert_eq!(inventory.len(), 310);
        assert_eq!(inventory.iter().map(|t| t.shape.iter().product::<u64>()).sum::<u64>(), parameters);
        let names: Vec<&str> = inventory[..2].iter().map(|t| t.name.as_str()).collect();
        assert_eq!(names, ["model.embed_tokens.weight", "model.norm.weight"]);
        let names: Vec<&str> = inventory[299..].iter().map(|t| t.name.as_str()).collect();
        let last = [
            "input_layernorm",
            "self_attn.q_proj",
            "self_attn.k_proj",
            "self_attn.v_proj",
            "self_attn.o_proj",
            "self_attn.q_norm",
            "self_attn.k_norm",
            "post_attention_layernorm",
            "mlp.gate_proj",
            "mlp.up_proj",
            "mlp.down_proj",
        ];
        assert_eq!(names, last.map(|name| format!("model.layers.27.{name}.weight")));
        let untied = parse(&with(&published(hidden), json!({"tie_word_embeddings": false}))).unwrap().tensors();
        assert_eq!((untied.len(), untied[2].name.as_str()), (311, "lm_head.weight"));
    }
}

#[test]
fn the_same_is_said_in_several_ways() {
    let config = published(1024);
    let same = [
        without(&config, &["rope_scaling", "sliding_window", "use_sliding_window", "max_window_layers", "hidden_act"]),
        without(&config, &["attention_bias", "rms_norm_eps", "architectures"]),
        without(&config, &["model_type"]),
        with(&config, json!({"layer_types": vec!["full_attention"; 28]})),
        with(&config, json!({"sliding_window": 4096, "max_window_layers": 21})),
        with(&config, json!({"use_sliding_window": true, "sliding_window": 4096})),
        // As transformers 5 writes it.
        with(
            &without(&config, &["rope_theta", "rope_scaling"]),
            json!({"rope_parameters": {"rope_theta": 1e6, "rope_type": "default"}}),
        ),
        with(&config, json!({"rope_parameters": {"rope_theta": 1e6}})),
        with(&config, json!({"rope_scaling": {}})),
        with(&config, json!({"rope_scaling": {"rope_type": "default"}})),
        with(&config, json!({"rope_scaling": {"type": "default", "rope_theta": 1e6}})),
        with(&without(&config, &["rope_theta"]), json!({"rope_scaling": {"type": "default", "rope_theta": 1e6}})),
    ];
    for same in same {
        assert_eq!(parse(&same).unwrap(), parse(&config).unwrap(), "{same}");
    }
    assert_eq!(parse(&without(&config, &["tie_word_embeddings"])).unwrap().tensors().len(), 311);
    let eos = with(&config, json!({"eos_token_id": [151_645, 151_643]}));
    assert_eq!(parse(&eos).unwrap().eos, [151_645, 151_643]);
}

/// A window of 2 is a query's own key and one more: one step back.
#[test]
fn windows_are_where_the_config_says() {
    let windows = |changes: Value| -> Vec<Option<u32>> {
        let config =
            with(&published(1024), with(&json!({"num_hidden_layers": 4, "use_sliding_window": true}), changes));
        let attention = parse(&config).unwrap().layers.into_iter().step_by(2);
        attention.map(|layer| if let BlockKind::Attention(a) = layer.kind { a.window } else { panic!() }).collect()
    };
    let from = |first: u32| json!({"sliding_window": 4096, "max_window_layers": first});
    assert_eq!(windows(from(4)), [None; 4]);
    assert_eq!(windows(from(3)), [None, None, None, Some(4095)]);
    assert_eq!(windows(from(0)), [Some(4095); 4]);
    let types = ["sliding_attention", "full_attention", "sliding_attention", "full_attention"];
    assert_eq!(windows(json!({"sliding_window": 2, "layer_types": types})), [Some(1), None, Some(1), None]);
    // Nothing but the query's own key.
    assert_eq!(windows(json!({"sliding_window": 1, "layer_types": types})), [Some(0), None, Some(0), None]);
}

#[test]
fn a_config_of_another_model_is_named_by_its_keys() {
    let (json, header) = load(GOLDEN);
    let cases = [
        (json!({"vocab_size": 511}), "`vocab_size` makes 511, but by the tensors it is 512"),
        (json!({"hidden_size": 256}), "`hidden_size` makes 256, but by the tensors it is 128"),
        (json!({"intermediate_size": 512}), "`intermediate_size` makes 512, but by the tensors it is 384"),
        (json!({"head_dim": 32}), "`head_dim` makes 32, but by the tensors it is 64"),
        (json!({"num_attention_heads": 2}), "model.layers.0.self_attn.q_proj.weight: has shape [256, 128]"),
        (json!({"num_hidden_layers": 2, "layer_types": null}), "model.layers.2.mlp.up_proj.weight: not part of this"),
        (json!({"num_hidden_layers": 4, "layer_types": null}), "model.layers.3.self_attn.q_norm.weight: missing"),
        (json!({"tie_word_embeddings": false}), "lm_head.weight: missing"),
    ];
    for (change, expected) in cases {
        let lines = lines(parse(&with(&json, change)).unwrap().check(std::slice::from_ref(&header)));
        assert!(lines.iter().any(|l| l.contains(expected)), "{expected}: {lines:#?}");
    }
}

/// The golden model with a window from layer 28 on, of which it has none: so every key is used.
fn windowed() -> Value {
    with(&load(GOLDEN).0, json!({"use_sliding_window": true, "sliding_window": 16, "layer_types": null}))
}

#[test]
fn hostile_values_are_refused_by_name() {
    let config = windowed();
    parse(&config).unwrap();
    let whole = [
        "vocab_size",
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
        "head_dim",
        "max_position_embeddings",
        "sliding_window",
        "max_window_layers",
    ];
    for key in whole {
        for value in
            [json!("4"), json!(-2), json!(1.5), json!(true), json!([1]), json!({}), json!(1e300), json!(u64::MAX)]
        {
            assert_refused(&with(&config, json!({key: value})), key);
        }
    }
    for value in [json!("4"), json!(-2), json!(true), json!([1]), json!({}), json!(1e300), json!(0), json!(1e-300)] {
        for key in ["rope_theta", "rms_norm_eps"] {
            assert_refused(&with(&config, json!({key: value})), key);
        }
        assert_refused(&with(&config, json!({"rope_parameters": {"rope_theta": value}})), "rope_parameters.rope_theta");
    }
    for key in ["tie_word_embeddings", "attention_bias", "use_sliding_window"] {
        for value in [json!("true"), json!(1), json!([]), json!({})] {
            assert_refused(&with(&config, json!({key: value})), key);
        }
    }
    for value in [json!("x".repeat(100_000)), json!(""), json!(1), json!([]), json!(true)] {
        for key in ["hidden_act", "model_type", "rope_scaling", "rope_parameters"] {
            assert_refused(&with(&config, json!({key: value})), key);
        }
        for key in ["rope_type", "type"] {
            let field = format!("rope_parameters.{key}");
            assert_refused(&with(&config, json!({"rope_parameters": {key: value}})), &field);
        }
    }
}

#[test]
fn unsupported_combinations_are_refused_by_name() {
    let config = windowed();
    let types = |n: usize, kind: &str| json!({"layer_types": vec![kind; n]});
    let cases = [
        (json!({"num_hidden_layers": 0}), "num_hidden_layers"),
        (json!({"num_hidden_layers": 1025}), "num_hidden_layers"),
        (json!({"num_hidden_layers": null}), "num_hidden_layers"),
        (json!({"vocab_size": 0}), "vocab_size"),
        (json!({"hidden_size": 0}), "hidden_size"),
        (json!({"hidden_size": 132}), "hidden_size"),
        (json!({"hidden_size": 1 << 17}), "hidden_size"),
        (json!({"intermediate_size": 0}), "intermediate_size"),
        (json!({"intermediate_size": 100}), "intermediate_size"),
        (json!({"intermediate_size": (1 << 18) + 8}), "intermediate_size"),
        (json!({"num_attention_heads": 0}), "num_attention_heads"),
        (json!({"num_attention_heads": 1025}), "num_attention_heads"),
        (json!({"num_attention_heads": null}), "num_attention_heads"),
        (json!({"num_key_value_heads": 0}), "num_key_value_heads"),
        (json!({"num_key_value_heads": 3}), "num_key_value_heads"),
        (json!({"num_key_value_heads": 8}), "num_key_value_heads"),
        (json!({"num_key_value_heads": null}), "num_key_value_heads"),
        (json!({"head_dim": 0}), "head_dim"),
        (json!({"head_dim": 60}), "head_dim"),
        (json!({"head_dim": 264}), "head_dim"),
        (json!({"hidden_act": "gelu"}), "hidden_act"),
        (json!({"attention_bias": true}), "attention_bias"),
        (json!({"rms_norm_eps": 0.5}), "rms_norm_eps"),
        (json!({"rope_theta": 0.5}), "rope_theta"),
        (json!({"rope_theta": null}), "rope_theta"),
        (json!({"rope_theta": null, "rope_parameters": {"rope_type": "default"}}), "rope_theta"),
        (json!({"rope_parameters": {"rope_theta": 10_000}}), "rope_parameters.rope_theta"),
        (json!({"rope_parameters": {"rope_type": "yarn", "factor": 4.0}}), "rope_parameters.rope_type"),
        (json!({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}), "rope_scaling.rope_type"),
        (json!({"rope_scaling": {"factor": 4.0}}), "rope_scaling"),
        (json!({"rope_scaling": {"rope_type": "default", "type": "yarn"}}), "rope_scaling.type"),
        (json!({"sliding_window": 0}), "sliding_window"),
        (json!({"sliding_window": null}), "sliding_window"),
        (json!({"max_window_layers": null}), "max_window_layers"),
        (types(2, "full_attention"), "layer_types"),
        (types(1025, "full_attention"), "layer_types"),
        (types(0, ""), "layer_types"),
        (types(3, "linear_attention"), "layer_types"),
        (json!({"layer_types": [1, 2, 3]}), "layer_types"),
        (json!({"layer_types": vec!["sliding_attention"; 3], "use_sliding_window": false}), "layer_types"),
        (json!({"max_position_embeddings": 0}), "max_position_embeddings"),
        (json!({"eos_token_id": [2, "3"]}), "eos_token_id"),
        (json!({"bos_token_id": "<s>"}), "bos_token_id"),
        (json!({"architectures": ["Qwen3MoeForCausalLM"]}), "architectures"),
        (json!({"architectures": ["NemotronFlashForCausalLM"]}), "model_type"),
        (json!({"model_type": "qwen3_moe"}), "model_type"),
    ];
    for (change, field) in cases {
        assert_refused(&with(&config, change), field);
    }
    // The kind of scaling is named, in either spelling.
    for key in ["rope_type", "type"] {
        let error = parse(&with(&config, json!({"rope_scaling": {key: "yarn"}}))).unwrap_err().to_string();
        assert!(error.contains("\"yarn\" is not supported: it must be \"default\""), "{error}");
    }
}

#[test]
fn absent_dimensions_come_from_the_shapes() {
    let (config, header) = load(GOLDEN);
    let shapes: [(&str, &str, &[u64]); 4] = [
        ("vocab_size", "model.embed_tokens.weight", &[0, 128]),
        ("hidden_size", "model.embed_tokens.weight", &[512, 129]),
        ("intermediate_size", "model.layers.0.mlp.up_proj.weight", &[1 << 33, 128]),
        ("head_dim", "model.layers.0.self_attn.q_norm.weight", &[u64::MAX]),
    ];
    for (key, tensor, shape) in shapes {
        let bare = without(&config, &[key]).to_string();
        assert_refused(&without(&config, &[key]), key);
        let tables = [header.clone()];
        assert_eq!(Config::resolve(bare.as_bytes(), &tables).unwrap(), parse(&config).unwrap());
        let mut header = header.clone();
        header.tensors.iter_mut().find(|t| t.name == tensor).unwrap().shape = shape.to_vec();
        match Config::resolve(bare.as_bytes(), &[header]) {
            Err(Error::Config { field, .. }) => assert_eq!(field, key, "{tensor} {shape:?}"),
            other => panic!("{tensor} {shape:?}: {other:?}"),
        }
    }
}
