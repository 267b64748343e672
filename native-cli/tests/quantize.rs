//! Quantised folders and quantising while loading.
#![forbid(unsafe_code)]

use crate::common::{cpu, fables, not_a_number, root};
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;
use std::path::Path;

fn logits(options: &[&str], out: &Path) -> Vec<u8> {
    let out = out.join("logits.safetensors");
    cpu(&[options, &["logits", "--ids", "437,1058,259,12", "--out", out.to_str().unwrap()]].concat()).ok();
    std::fs::read(out).unwrap()
}

#[test]
fn a_written_folder_is_what_loading_makes() {
    let temp = tempfile::tempdir().unwrap();
    for (bits, group, weights) in [("4", "64", "q4"), ("8", "64", "q8")] {
        let out = temp.path().join(weights);
        let shown = out.to_str().unwrap();
        let report = cpu(&["quantize", shown, "--bits", bits, "--group-size", group, "--json"]).json();
        assert_eq!((&report["bits"], &report["group_size"]), (&bits.parse::<u32>().unwrap().into(), &64.into()));
        let written = logits(&["--model", shown], temp.path());
        assert!(written == logits(&["--weights", weights], temp.path()), "{bits} bits");
        assert!(written != logits(&[], temp.path()), "{bits} bits are not the original");

        // The layout is MLX's, by the words of the safetensors crate.
        let bytes = std::fs::read(out.join("model.safetensors")).unwrap();
        assert_eq!(
            report["bytes"].as_u64().unwrap(),
            bytes.len() as u64 - SafeTensors::read_metadata(&bytes).unwrap().0 as u64 - 8
        );
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let tensor = |name: &str| {
            let tensor = file.tensor(&format!("model.embed_tokens.{name}")).unwrap();
            (tensor.dtype(), tensor.shape().to_vec())
        };
        assert_eq!(tensor("weight"), (Dtype::U32, vec![4096, 256 * bits.parse::<usize>().unwrap() / 32]));
        assert_eq!(tensor("scales"), (Dtype::BF16, vec![4096, 4]));
        assert_eq!(tensor("biases"), (Dtype::BF16, vec![4096, 4]));
        let config: Value = serde_json::from_slice(&std::fs::read(out.join("config.json")).unwrap()).unwrap();
        assert_eq!(config["quantization"]["group_size"], 64);
        assert_eq!(config["quantization"], config["quantization_config"]);
    }
}

#[test]
fn licence_and_tokenizer_go_along() {
    let (folder, temp) = (fables(), tempfile::tempdir().unwrap());
    std::fs::write(folder.path().join("LICENSE"), "for everyone").unwrap();
    let out = temp.path().join("out");
    cpu(&["quantize", out.to_str().unwrap(), "--model", folder.path().to_str().unwrap()]).ok();
    for name in ["LICENSE", "tokenizer.json"] {
        let read = |folder: &Path| std::fs::read(folder.join(name)).unwrap();
        assert!(read(folder.path()) == read(&out), "{name}");
    }
    let mut names: Vec<_> = std::fs::read_dir(&out).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["LICENSE", "config.json", "model.safetensors", "tokenizer.json"]);
}

/// Perplexity of the held-out text, and how much of it the weights may cost. Measured on all of it: see docs/benchmarks.md; on 4,000
/// tokens: 0.001 % and 4.0 %.
#[test]
fn little_is_lost() {
    let text = root().join("models/fables/held-out.txt");
    let perplexity = |weights: &str| {
        let run = cpu(&[
            "perplexity",
            "--text",
            text.to_str().unwrap(),
            "--max-tokens",
            "1500",
            "--weights",
            weights,
            "--json",
        ]);
        run.json()["perplexity"].as_f64().unwrap()
    };
    let (bf16, q8, q4) = (perplexity("bf16"), perplexity("q8"), perplexity("q4"));
    assert!((q8 / bf16 - 1.0).abs() < 0.005, "8 bits: {q8}, bf16: {bf16}");
    assert!(q4 / bf16 < 1.05, "4 bits: {q4}, bf16: {bf16}");
    assert!(q4 > q8, "the comparison can tell 4 bits from 8");
}

#[test]
fn what_cannot_be_quantised_is_said() {
    let temp = tempfile::tempdir().unwrap();
    let out = temp.path().join("out");
    let shown = out.to_str().unwrap();
    cpu(&["quantize", shown]).ok();
    let again = temp.path().join("again");
    cpu(&["quantize", again.to_str().unwrap(), "--model", shown]).refused(1, &["quantised already"]);
    assert!(!again.exists());
    cpu(&["quantize", shown]).refused(1, &["is not empty"]);
    cpu(&["quantize", again.to_str().unwrap(), "--bits", "3"]).refused(2, &["3 is not one of"]);
    cpu(&["quantize", again.to_str().unwrap(), "--group-size", "100"]).refused(2, &["100 is not one of"]);
    cpu(&["--model", shown, "--weights", "q8", "x"]).refused(2, &["quantised already"]);
    cpu(&["synthesize", again.to_str().unwrap()]).refused(2, &["--arch nemotron-flash-1b"]);
    cpu(&["--arch", "nemotron-flash-1b", "--model", shown, "x"]).refused(2, &["cannot be used with"]);
    let nan = fables();
    not_a_number(nan.path());
    let run = cpu(&["quantize", again.to_str().unwrap(), "--model", nan.path().to_str().unwrap()]);
    run.refused(1, &["tensor ", "number 0 is NaN"]);
    assert!(!run.err.contains("disk") && std::fs::read_dir(&again).unwrap().next().is_none());
    std::fs::remove_dir(&again).unwrap();
    let broken = fables();
    std::fs::write(broken.path().join("model.safetensors"), b"12345678").unwrap();
    cpu(&["quantize", again.to_str().unwrap(), "--model", broken.path().to_str().unwrap()])
        .refused(1, &["safetensors"]);
    assert!(!again.exists());
}
