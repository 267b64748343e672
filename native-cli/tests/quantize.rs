//! Quantised folders and quantising while loading.
#![forbid(unsafe_code)]

use crate::common::{cpu, fables, nemoflash, not_a_number, root};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;
use std::path::Path;
use std::time::{Duration, Instant};

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

fn names(folder: &Path) -> Vec<String> {
    let names = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.collect();
    names.sort();
    names
}

/// A killed run leaves nothing that looks like a model, and does not keep the next one from writing.
#[test]
fn a_killed_run_leaves_no_folder() {
    let temp = tempfile::tempdir().unwrap();
    let out = temp.path().join("out");
    let shown = out.to_str().unwrap();
    let mut child = nemoflash(&["synthesize", shown, "--arch", "nemotron-flash-1b"]).spawn().unwrap();
    let start = Instant::now();
    let partial = temp.path().join(".out.partial/model.safetensors");
    while std::fs::metadata(&partial).map_or(0, |data| data.len()) < 1 << 20 {
        assert!(start.elapsed() < Duration::from_secs(60), "nothing is written");
        std::thread::sleep(Duration::from_millis(5));
    }
    // Meanwhile, nobody else writes the same folder.
    cpu(&["quantize", shown]).refused(1, &["another run is writing"]);
    child.kill().unwrap();
    assert!(!child.wait().unwrap().success(), "it was killed in the middle");
    assert!(!out.exists() && partial.exists());
    cpu(&["verify", "--model", shown]).refused(1, &["no such folder"]);
    let run = cpu(&["quantize", shown]);
    assert!(run.err.contains("which an earlier run left"), "{}", run.err);
    run.ok();
    assert_eq!(names(temp.path()), ["out"]);
    cpu(&["verify", "--model", shown]).ok();
}

#[test]
fn a_folder_is_written_where_nothing_is() {
    let (model, temp) = (fables(), tempfile::tempdir().unwrap());
    let input = model.path().to_str().unwrap();
    let before = names(model.path());
    cpu(&["quantize", input, "--model", input]).refused(1, &["is the model that is read"]);
    let inside = model.path().join(".");
    cpu(&["quantize", inside.to_str().unwrap(), "--model", input]).refused(1, &["is the model that is read"]);
    assert_eq!(names(model.path()), before);
    // An empty folder may be there already. What an earlier run left is removed, but nothing that is not such a thing.
    let out = temp.path().join("out");
    std::fs::create_dir(&out).unwrap();
    let odd = temp.path().join(".out.partial/folder");
    std::fs::create_dir_all(&odd).unwrap();
    cpu(&["quantize", out.to_str().unwrap()]).refused(1, &["cannot remove"]);
    assert!(odd.exists());
    std::fs::remove_dir(&odd).unwrap();
    cpu(&["quantize", out.to_str().unwrap()]).ok();
    assert_eq!(names(temp.path()), ["out"]);
}

/// A head that is not the tied embedding goes along; one that is the same once more does not.
#[test]
fn another_head_is_kept() {
    let (model, temp) = (fables(), tempfile::tempdir().unwrap());
    for (name, other) in [("same", false), ("other", true)] {
        with_head(model.path(), other);
        let out = temp.path().join(name);
        cpu(&["quantize", out.to_str().unwrap(), "--model", model.path().to_str().unwrap()]).ok();
        let bytes = std::fs::read(out.join("model.safetensors")).unwrap();
        assert_eq!(SafeTensors::deserialize(&bytes).unwrap().tensor("lm_head.scales").is_ok(), other);
        let loaded = logits(&["--model", model.path().to_str().unwrap(), "--weights", "q4"], temp.path());
        assert!(logits(&["--model", out.to_str().unwrap()], temp.path()) == loaded, "{name}");
        let tied = logits(&["--weights", "q4"], temp.path());
        assert_eq!(loaded == tied, !other, "{name}");
    }
}

/// Gives the model a head of its own beside its tied embedding: the embedding, or its rows in reverse.
fn with_head(folder: &Path, other: bool) {
    let path = folder.join("model.safetensors");
    let bytes = std::fs::read(root().join("models/fables/model.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let embedding = file.tensor("model.embed_tokens.weight").unwrap();
    let rows = embedding.data().chunks(embedding.data().len() / embedding.shape()[0]);
    let head: Vec<u8> = if other { rows.rev().flatten().copied().collect() } else { rows.flatten().copied().collect() };
    let head = TensorView::new(embedding.dtype(), embedding.shape().to_vec(), &head).unwrap();
    let tensors = file.tensors().into_iter().chain([("lm_head.weight".to_owned(), head)]);
    // The model's folder may hold a link to the original.
    std::fs::remove_file(&path).unwrap();
    safetensors::serialize_to_file(tensors, None, &path).unwrap();
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
    assert_eq!(names(&out), ["LICENSE", "config.json", "model.safetensors", "tokenizer.json"]);
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
    assert!(!run.err.contains("disk") && names(temp.path()) == ["out"], "{:?}", names(temp.path()));
    let broken = fables();
    std::fs::write(broken.path().join("model.safetensors"), b"12345678").unwrap();
    cpu(&["quantize", again.to_str().unwrap(), "--model", broken.path().to_str().unwrap()])
        .refused(1, &["safetensors"]);
    assert!(!again.exists());
}
