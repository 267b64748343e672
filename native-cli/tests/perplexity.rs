//! Perplexity is what the reference's logits and the program's own logits say it is.
#![forbid(unsafe_code)]

use crate::common::{cpu, fables, finish, nemoflash, root, too_large};
use nemoflash::Tokenizer;
use safetensors::SafeTensors;
use serde_json::{Value, json};
use std::fs;

/// Largest difference in nats per token from the float64 reference with keys and values in f32. Measured: 2.6e-7 (CPU),
/// 5.1e-7 (llvmpipe).
const EXACT: f64 = 1.6e-6;
/// The same with keys and values in f16. Measured: 3.9e-5 everywhere; cooperative matrices, which round to f16 too, are not in that.
const DEFAULT: f64 = 1e-3;

const VOCAB: usize = 4096;

fn tokenizer() -> Tokenizer {
    Tokenizer::from_bytes(&fs::read(root().join("models/fables/tokenizer.json")).unwrap()).unwrap()
}

fn held_out() -> String {
    root().join("models/fables/held-out.txt").to_str().unwrap().to_owned()
}

/// Words of a tensor, and of nothing that is no tensor of 32-bit words.
fn words(file: &SafeTensors, name: &str) -> Vec<[u8; 4]> {
    file.tensor(name).unwrap().data().chunks_exact(4).map(|word| word.try_into().unwrap()).collect()
}

/// The sum of `-ln p` of every token that has a row of logits `ahead` tokens in front of it.
fn nats(logits: &[[u8; 4]], ids: &[u32], ahead: usize) -> f64 {
    let rows = logits.chunks_exact(VOCAB).zip(&ids[ahead..]);
    rows.map(|(row, &id)| {
        let row: Vec<f64> = row.iter().map(|&word| f64::from(f32::from_le_bytes(word))).collect();
        row.iter().map(|logit| logit.exp()).sum::<f64>().ln() - row[id as usize]
    })
    .sum()
}

fn measure(arguments: &[&str]) -> Value {
    finish(nemoflash(&[&["perplexity", "--json"], arguments].concat()).spawn().unwrap()).json()
}

fn number(json: &Value, name: &str) -> f64 {
    json[name].as_f64().unwrap_or_else(|| panic!("no number {name} in {json}"))
}

/// How to run on the CPU and on every adapter.
fn everywhere() -> Vec<[String; 2]> {
    let list = finish(nemoflash(&["devices", "--json"]).spawn().unwrap()).json();
    let adapters = list["adapters"].as_array().unwrap().iter();
    let adapters = adapters.map(|adapter| ["--adapter".to_owned(), adapter["index"].to_string()]);
    [["--device".to_owned(), "cpu".to_owned()]].into_iter().chain(adapters).collect()
}

#[test]
fn prompts_are_as_surprising_as_the_reference_says() {
    let bytes = fs::read(root().join("tests/golden/fables.safetensors")).unwrap();
    let golden = SafeTensors::deserialize(&bytes).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("prompt.txt");
    for [option, value] in everywhere() {
        let mut worst = [0f64; 2];
        for prompt in ["0.", "1.", "2."] {
            let ids: Vec<u32> = words(&golden, &format!("{prompt}ids")).into_iter().map(u32::from_le_bytes).collect();
            let logits = words(&golden, &format!("{prompt}logits"));
            fs::write(&file, tokenizer().decode(&ids, false)).unwrap();
            let tokens = (ids.len() - 1) as f64;
            for ((kv, tolerance), worst) in [("f32", EXACT), ("f16", DEFAULT)].into_iter().zip(&mut worst) {
                let json = measure(&["--text", file.to_str().unwrap(), "--kv", kv, &option, &value]);
                assert_eq!((number(&json, "tokens"), number(&json, "windows")), (tokens, 1.0));
                let mean = number(&json, "nll_per_token");
                assert!((number(&json, "perplexity") / mean.exp() - 1.0).abs() < 1e-9);
                let difference = |ahead| (mean - nats(&logits, &ids, ahead) / tokens).abs();
                *worst = worst.max(difference(1));
                assert!(difference(1) < tolerance, "{value} {prompt} {kv}: {} nats", difference(1));
                // Negative control: the row of the token itself, and not of the one in front of it.
                assert!(difference(0) > 100.0 * tolerance, "{value} {prompt} {kv}: the comparison cannot fail");
            }
        }
        println!("{option} {value}: {:.1e} nats with f32, {:.1e} with f16", worst[0], worst[1]);
    }
}

/// Windows share nothing, each begins with the tokenizer's prefix, the last may be short, and a token without one in
/// front of it does not count.
#[test]
fn windows_are_independent_texts() {
    let text = fs::read_to_string(held_out()).unwrap();
    let ids = tokenizer().encode(&text[..1000], false).unwrap();
    let folder = fables();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (out, model) = (path("logits.safetensors"), path(""));
    let file = fs::read(path("tokenizer.json")).unwrap();
    let logits = |ids: &[u32]| {
        let list = ids.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
        cpu(&["logits", "--ids", &list, "--out", &out]).ok();
        let bytes = fs::read(&out).unwrap();
        words(&SafeTensors::deserialize(&bytes).unwrap(), "logits")
    };
    let mut worst = 0f64;
    for (prefix, tokens, window, windows) in
        [(&[][..], 101, 50, 2), (&[], 102, 50, 3), (&[], 9, 2, 4), (&[1], 99, 50, 3), (&[1, 3], 150, 68, 3)]
    {
        fs::write(path("tokenizer.json"), with_prefix(&file, prefix)).unwrap();
        let (most, context) = (tokens.to_string(), window.to_string());
        let options = ["--max-tokens", &most, "--context", &context, "--device", "cpu", "--model", &model];
        let json = measure(&[&["--text", &held_out()], &options[..]].concat());
        // What stands in front of the first token that counts: a part of the prefix, or the first token.
        let first = prefix.len().max(1);
        let sum = |window: &[u32]| {
            let all = [prefix, window].concat();
            nats(&logits(&all)[(first - 1) * VOCAB..], &all[first - 1..], 1)
        };
        let texts: Vec<_> =
            ids[..tokens].chunks(window - prefix.len()).filter(|text| text.len() + prefix.len() > 1).collect();
        let scored = texts.iter().map(|text| text.len() + prefix.len() - first).sum::<usize>();
        let counts = ["windows", "tokens", "context"].map(|name| number(&json, name) as usize);
        assert_eq!((counts, texts.len()), ([windows, scored, window], windows));
        let want = texts.iter().map(|text| sum(text)).sum::<f64>() / scored as f64;
        let got = number(&json, "nll_per_token");
        worst = worst.max((got - want).abs());
        // Negative control: as one text.
        let whole = sum(&ids[..tokens]) / (tokens + prefix.len() - first) as f64;
        assert!((got - whole).abs() > 1e-2, "windows change nothing: {got}, {whole}");
    }
    // One row alone takes other kernels. Measured: 3.6e-7.
    println!("windows: {worst:.1e} nats");
    assert!(worst < 1.1e-6, "{worst} nats");
}

/// A tokenizer.json whose post-processor puts these tokens in front.
fn with_prefix(file: &[u8], prefix: &[u32]) -> Vec<u8> {
    let mut json: Value = serde_json::from_slice(file).unwrap();
    let names = ["<unk>", "<s>", "</s>", "<|endoftext|>"];
    let special = |id: &u32| json!({ "SpecialToken": { "id": names[*id as usize], "type_id": 0 } });
    let mut single: Vec<Value> = prefix.iter().map(special).collect();
    single.push(json!({ "Sequence": { "id": "A", "type_id": 0 } }));
    let tokens = prefix.iter().map(|&id| {
        let name = names[id as usize];
        (name.to_owned(), json!({ "id": name, "ids": [id], "tokens": [name] }))
    });
    let tokens: Value = tokens.collect::<serde_json::Map<_, _>>().into();
    json["post_processor"] =
        json!({ "type": "TemplateProcessing", "single": single, "pair": [], "special_tokens": tokens });
    serde_json::to_vec(&json).unwrap()
}

#[test]
fn people_get_one_line() {
    let run = cpu(&["perplexity", "--text", &held_out(), "--max-tokens", "65", "--context", "40"]);
    assert!(run.err.starts_with("[63 tokens in 2 windows of 40, ") && run.err.ends_with("/s; cpu]\n"), "{run:?}");
    let out = run.ok();
    let number: f64 = out.strip_prefix("perplexity ").unwrap().trim_end().parse().unwrap();
    assert!((10.0..1000.0).contains(&number), "{number}");
}

#[test]
fn what_cannot_be_measured_is_refused() {
    let folder = fables();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (text, model) = (path("text.txt"), folder.path().to_str().unwrap());
    let measure = |more: &[&str]| cpu(&[&["perplexity", "--text", &text], more].concat());
    measure(&[]).refused(1, &["text.txt", "Check the path"]);
    cpu(&["perplexity", "--text", model]).refused(1, &["is not a file", "UTF-8 text file"]);
    for (bytes, words) in [
        (&b""[..], &["0 tokens", "longer"][..]),
        (b"a", &["1 tokens", "longer"]),
        (b"Once \xff upon", &["text.txt is not UTF-8", "byte 6 is 0xff", "iconv"]),
    ] {
        fs::write(&text, bytes).unwrap();
        measure(&[]).refused(1, words);
    }
    fs::File::create(&text).unwrap().set_len((64 << 20) + 1).unwrap();
    measure(&[]).refused(1, &["more than 64 MiB"]);
    fs::write(&text, "Once upon a time").unwrap();
    measure(&["--context", "1"]).refused(2, &["--context", "1 tokens leave none"]);
    measure(&["--max-tokens", "1"]).refused(2, &["--max-tokens"]);
    cpu(&["perplexity"]).refused(2, &["--text"]);
    too_large(folder.path());
    measure(&["--model", model]).refused(1, &["not finite at position"]);
}
