//! Files as other programs write them.

use super::{load, parse, with, without};
use nemoflash::Config;
use serde_json::{Value, json};

/// Python writes `Infinity` and `NaN`, and some editors a byte order mark; transformers 5 moves the rotary keys.
#[test]
fn what_other_programs_write_is_read() {
    let (json, _) = load("models/fables");
    let config = parse(&json).unwrap();
    let text = json.to_string();
    for start in ["{\"time_step_limit\": [0.0, Infinity], ", "{\"a\": NaN, \"b\": -Infinity, ", "\u{feff}{"] {
        assert_eq!(Config::parse(text.replacen('{', start, 1).as_bytes()).unwrap(), config);
    }
    // One that is read is refused by its name.
    let read = text.replacen('{', "{\"mamba_expand\": Infinity, ", 1).replace("\"mamba_expand\":2", "\"x\":2");
    let error = Config::parse(read.as_bytes()).unwrap_err().to_string();
    assert!(error.contains("`mamba_expand`: \"Infinity\" is not a number"), "{error}");

    let rotary = ["rope_theta", "rope_type", "orig_max_position_embeddings"];
    let moved: Value =
        rotary.iter().map(|key| ((*key).to_owned(), json[*key].clone())).collect::<serde_json::Map<_, _>>().into();
    for place in ["rope_parameters", "rope_scaling"] {
        assert_eq!(parse(&with(&without(&json, &rotary), json!({place: moved}))).unwrap(), config, "{place}");
    }
    // In two places that agree, and negative control: without them it is another model.
    assert_eq!(parse(&with(&json, json!({"rope_parameters": moved}))).unwrap(), config);
    assert_ne!(parse(&without(&json, &rotary)).unwrap(), config);
}

#[test]
fn tokens_may_be_one_or_many_or_none() {
    let (json, _) = load("models/fables");
    let eos = |value: Value| parse(&with(&json, json!({"eos_token_id": value}))).unwrap().eos;
    assert_eq!(eos(json!(7)), [7]);
    assert_eq!(eos(json!([7, 0])), [7, 0]);
    assert!(eos(json!(null)).is_empty());
    assert_eq!(parse(&without(&json, &["bos_token_id"])).unwrap().bos, None);
    // Numbers that no token has.
    assert_eq!(eos(json!([7, 1u64 << 30, -1, 1u64 << 40])), [7]);
    assert!(eos(json!(-1)).is_empty());
    for bos in [json!(-1), json!(1u64 << 30)] {
        assert_eq!(parse(&with(&json, json!({"bos_token_id": bos}))).unwrap().bos, None);
    }
}
