//! Files and texts that were made to do harm.

use std::panic::{AssertUnwindSafe, catch_unwind};

use nemoflash::{Error, Tokenizer};
use serde_json::{Value, json};

use super::{FABLES, Random, TEXTS, fables_json, ours, small, split, upstream};

/// Files that make `tokenizers` 0.23.2 panic (huggingface/tokenizers #2094, #2198, #2151).
fn panicking() -> Vec<(&'static str, Value)> {
    let with = |edit: &dyn Fn(&mut Value)| {
        let mut file = small();
        edit(&mut file);
        file
    };
    let bad_template = json!({"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}},
        {"Sequence": {"id": "A", "type_id": 0}}], "pair": [], "special_tokens": {}});
    vec![
        (
            "merge",
            with(&|f| {
                let long = format!("Ġ{}", "y".repeat(600));
                f["model"]["vocab"][long.as_str()] = json!(460);
                f["model"]["merges"] = json!([[long.as_str(), long.as_str()]]);
            }),
        ),
        (
            "affix",
            with(&|f| {
                f["model"]["continuing_subword_prefix"] = json!("####");
            }),
        ),
        ("Precompiled", with(&|f| f["normalizer"] = json!({"type": "Precompiled", "precompiled_charsmap": "AAA="}))),
        ("FixedLength", with(&|f| f["pre_tokenizer"] = json!({"type": "FixedLength", "length": 0}))),
        ("special token \"<s>\" has no ids", with(&|f| f["post_processor"] = bad_template.clone())),
        ("Strip", with(&|f| f["decoder"] = json!({"type": "Strip", "content": "a", "start": 1, "stop": 1}))),
    ]
}

const PROBE: &str = "a the and 123 \n";

#[test]
fn known_panics_are_refused() {
    for (name, file) in panicking() {
        // Negative control: the same harness sees upstream panic.
        let text = file.to_string();
        let crash = catch_unwind(AssertUnwindSafe(|| {
            let t = tokenizers::Tokenizer::from_bytes(&text)?;
            let ids = t.encode(PROBE, true)?.get_ids().to_vec();
            t.decode(&ids, false)
        }));
        assert!(crash.is_err(), "negative control: upstream no longer panics on {name}");

        let name = if name == "affix" { "continuing_subword_prefix" } else { name };
        let Err(Error::Tokenizer { why }) = Tokenizer::from_bytes(text.as_bytes()) else { panic!("{name} was read") };
        assert!(why.contains(name), "{name}: {why}");
    }
    // Not a panic here, but a stride above the length is one upstream; truncation is not used.
    let mut file = small();
    file["truncation"] = json!({"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 7});
    assert!(ours(&file).unwrap().encode(PROBE, true).unwrap().len() > 2);
}

#[test]
fn unsupported_and_contradictory_files_are_refused() {
    type Edit = fn(&mut Value);
    let cases: &[(&str, Edit)] = &[
        ("Unigram", |f| f["model"] = json!({"type": "Unigram", "unk_id": 0, "vocab": [["a", 0.0]]})),
        ("Lowercase", |f| f["normalizer"] = json!({"type": "Lowercase"})),
        ("Metaspace", |f| f["pre_tokenizer"]["pretokenizers"][0] = json!({"type": "Metaspace"})),
        ("ByteLevel", |f| f["pre_tokenizer"] = Value::Null),
        ("RobertaProcessing", |f| f["post_processor"] = json!({"type": "RobertaProcessing"})),
        ("decoder", |f| f["decoder"] = Value::Null),
        ("WordPiece", |f| f["decoder"] = json!({"type": "WordPiece"})),
        ("MergedWith", |f| {
            f["pre_tokenizer"] = split("x", "MergedWithNext", false);
            f["pre_tokenizer"]["pretokenizers"][0]["behavior"] = json!("MergedWithNext");
        }),
        ("dropout", |f| f["model"]["dropout"] = json!(0.5)),
        ("stands twice", |f| {
            let first = f["added_tokens"][0].clone();
            f["added_tokens"].as_array_mut().unwrap().push(first);
        }),
        ("id 5 is both", |f| f["model"]["vocab"]["again"] = json!(5)),
        ("has id 9, but 2", |f| f["added_tokens"][2]["id"] = json!(9)),
        ("id 4294967295", |f| f["model"]["vocab"]["far"] = json!(u32::MAX)),
        ("byte 0x61", |f| drop(f["model"]["vocab"].as_object_mut().unwrap().remove("a"))),
        ("no token has id 9999", |f| {
            f["post_processor"]["processors"][1]["special_tokens"]["<s>"]["ids"] = json!([9999]);
        }),
        ("2 times", |f| {
            let single = f["post_processor"]["processors"][1]["single"].as_array_mut().unwrap();
            single.push(json!({"Sequence": {"id": "A", "type_id": 0}}));
        }),
        ("pattern", |f| f["pre_tokenizer"] = split("(unclosed", "Isolated", false)),
        ("patterns of 2000 bytes", |f| f["pre_tokenizer"] = split(&"x".repeat(2000), "Isolated", false)),
        ("pattern", |f| f["pre_tokenizer"] = split(r"\p{L}{1000}{1000}", "Isolated", false)),
        ("pattern", |f| {
            f["pre_tokenizer"] = split(&format!("{}{}", "(".repeat(300), ")".repeat(300)), "Isolated", false)
        }),
        ("more than 8 steps", |f| {
            let steps = f["pre_tokenizer"]["pretokenizers"].as_array_mut().unwrap();
            steps.splice(0..0, vec![steps[0].clone(); 8]);
        }),
        ("bytes are more than", |f| f["decoder"]["note"] = json!("x".repeat(1 << 17))),
        ("lstrip", |f| {
            f["added_tokens"][3]["special"] = json!(false);
            f["added_tokens"][3]["lstrip"] = json!(true);
        }),
        ("token \"xxx", |f| f["model"]["vocab"]["x".repeat(5000).as_str()] = json!(460)),
        ("missing field", |f| drop(f["model"].as_object_mut().unwrap().remove("merges"))),
    ];
    for (expected, edit) in cases {
        let mut file = small();
        edit(&mut file);
        match ours(&file) {
            Err(Error::Tokenizer { why }) => {
                assert!(why.contains(expected), "{expected}: {why}");
                assert!(why.len() < 2000);
            }
            other => panic!("{expected}: {other:?}"),
        }
    }
    // Negative control: the file that all of them are made from is fine.
    assert!(ours(&small()).is_ok());

    let deep = format!("{{\"normalizer\": {}", "[".repeat(100_000));
    let texts = ["", "null", "{}", "[]", "\u{FEFF}{}", &deep];
    for text in texts.iter().map(|t| t.as_bytes()).chain([&[b' '; (32 << 20) + 1][..], b"\xFF\xFE", &FABLES[..100_000]])
    {
        assert!(matches!(Tokenizer::from_bytes(text), Err(Error::Tokenizer { .. })));
    }
}

#[test]
fn runaway_patterns_end_in_an_error() {
    let mut file = small();
    file["pre_tokenizer"] = split(r"(?:(?!b)a|a)*(?<!a)c|.", "Isolated", false);
    let text = "a".repeat(40);
    // Negative control: upstream gives ids of a text that was not split as the file says.
    assert!(upstream(&file).encode(text.as_str(), false).is_ok());
    let error = ours(&file).unwrap().encode(&text, false).unwrap_err();
    assert!(matches!(error, Error::Prompt { .. }), "{error}");

    // Patterns that need a lot at every character, but never too much at one: bounded in sum.
    file["pre_tokenizer"] = split(r"(?:(?!b)a|a){1,14}(?<!a)c|.", "Isolated", false);
    assert!(ours(&file).unwrap().encode(&"a".repeat(4000), false).is_err());

    // A match that begins in the one before makes no progress.
    file["pre_tokenizer"] = split(r"(?<=\Ka)", "Isolated", false);
    let error = ours(&file).unwrap().encode(&text, false).unwrap_err();
    assert!(error.to_string().contains("overlap"), "{error}");

    // Honest patterns bear long runs.
    let (t, upstream) = (ours(&small()).unwrap(), upstream(&small()));
    for run in ["A", " ", "\n", "é", "中", "!"] {
        let text = run.repeat(100_000 / run.len());
        assert_eq!(t.encode(&text, false).unwrap(), upstream.encode(text.as_str(), false).unwrap().get_ids());
    }
    assert!(matches!(t.encode(&"a".repeat((2 << 20) + 1), false), Err(Error::Prompt { .. })));
}

/// One random edit somewhere in the file.
fn mutate(file: &mut Value, random: &mut Random) {
    let odd = [
        json!(null),
        json!(true),
        json!(-1),
        json!(0),
        json!(3),
        json!(460),
        json!(u32::MAX),
        json!(u64::MAX),
        json!(1e300),
        json!(""),
        json!("a"),
        json!("Ġ"),
        json!("<s>"),
        json!("é"),
        json!("#version x"),
        json!("x".repeat(3000)),
        json!([]),
        json!({}),
        json!([["a", "b"]]),
        json!({"a": 0}),
        json!("Sequence"),
        json!("ByteLevel"),
        json!("Precompiled"),
        json!("Removed"),
        json!(r"(a|aa)*b|(?=x)"),
        json!({"type": "NFKD"}),
        json!({"type": "FixedLength", "length": 0}),
        json!({"type": "Strip", "content": "a", "start": 9, "stop": 9}),
        json!({"type": "Replace", "pattern": {"Regex": "(("}, "content": ""}),
        json!({"type": "Sequence", "normalizers": [{"type": "NFC"}], "decoders": [], "processors": []}),
        json!({"type": "Split", "pattern": {"String": ""}, "behavior": "Isolated", "invert": true}),
    ];
    // Walk down at random; the big lists are one choice among their siblings.
    let mut at = file;
    loop {
        let size = match at {
            Value::Object(map) => map.len(),
            Value::Array(list) => list.len(),
            _ => 0,
        };
        if size == 0 || random.below(5) == 0 {
            break;
        }
        let i = random.below(size);
        at = match at {
            Value::Object(map) => map.values_mut().nth(i).unwrap(),
            Value::Array(list) => &mut list[i],
            _ => unreachable!(),
        };
    }
    let strange = random.pick(&odd).clone();
    match (random.below(4), at) {
        (0, Value::Object(map)) => {
            let key = map.keys().nth(random.below(map.len())).cloned();
            map.retain(|k, _| Some(k) != key.as_ref());
        }
        (1, Value::Object(map)) => {
            let key = random.pick(&odd).as_str().unwrap_or("b").to_owned();
            map.insert(key, strange);
        }
        (0, Value::Array(list)) if !list.is_empty() => drop(list.remove(random.below(list.len()))),
        (1, Value::Array(list)) => list.insert(random.below(list.len() + 1), strange),
        (2, Value::Array(list)) if !list.is_empty() => {
            let copy = random.pick(list).clone();
            list.push(copy);
        }
        (2, Value::String(text)) => text.push_str(random.pick::<&str>(&["b", "the", "é", " ", "*", "(?!x)"])),
        (2, Value::Number(n)) => *n = (n.as_u64().unwrap_or(0).wrapping_add(random.below(3) as u64)).into(),
        (_, at) => *at = strange,
    }
}

/// Reads a file and uses what was read; whether it was accepted.
fn exercise(bytes: &[u8], random: &mut Random) -> bool {
    let Ok(t) = Tokenizer::from_bytes(bytes) else { return false };
    for text in [PROBE.to_owned(), random.text(20), TEXTS[8].to_owned()] {
        if let Ok(ids) = t.encode(&text, true) {
            drop(t.decode(&ids, false));
            let mut stream = t.stream(true);
            ids.iter().for_each(|&id| drop(stream.push(id)));
        }
    }
    let ids: Vec<u32> = (0..10).map(|_| random.below(t.vocab_size() + 2) as u32).collect();
    drop((t.decode(&ids, false), t.token(ids[0]), t.is_special(ids[1])));
    true
}

#[test]
fn mutated_files_never_panic() {
    let mut random = Random(5);
    let (small, whole) = (small(), fables_json());
    let (mut accepted, mut refused, mut panics) = (0, 0, Vec::new());
    for i in 0..3000 {
        let mut file = if i % 20 == 0 { whole.clone() } else { small.clone() };
        for _ in 0..1 + random.below(3) {
            mutate(&mut file, &mut random);
        }
        let mut bytes = file.to_string().into_bytes();
        // One file in eight is also damaged below the level of JSON.
        if i % 8 == 0 {
            let at = random.below(bytes.len());
            match random.below(3) {
                0 => bytes.truncate(at),
                1 => bytes[at] = random.below(256) as u8,
                _ => drop(bytes.splice(at..at, *b"[{\"")),
            }
        }
        match catch_unwind(AssertUnwindSafe(|| exercise(&bytes, &mut random))) {
            Ok(true) => accepted += 1,
            Ok(false) => refused += 1,
            Err(_) => panics.push((i, String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(300)..]).into_owned())),
        }
    }
    assert!(panics.is_empty(), "{panics:?}");
    assert!(accepted > 300 && refused > 300, "both sides are visited: {accepted} accepted, {refused} refused");
}
