//! The doctor finds a sound machine sound, and what is broken broken.
#![forbid(unsafe_code)]

use crate::common::{Run, cpu, fables, finish, nemoflash, not_a_number, root, too_large};
use nemoflash_bench::{GOLDEN, PROMPT};
use safetensors::SafeTensors;
use serde_json::Value;
use std::fs;

/// The tokens that `doctor` and `bench` look for are those of the golden file.
#[test]
fn golden_tokens_are_the_references() {
    let bytes = fs::read(root().join("tests/golden/fables.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let words = |name: &str| bytemuck::pod_collect_to_vec::<u8, u32>(file.tensor(name).unwrap().data());
    assert_eq!(words("0.ids"), PROMPT);
    assert_eq!(words("0.greedy")[..GOLDEN.len()], GOLDEN);
    let gaps: Vec<f32> = bytemuck::cast_vec(words("0.gap"));
    assert!(gaps[..GOLDEN.len()].iter().all(|gap| *gap > 0.022), "{gaps:?}");
}

fn doctor(arguments: &[&str]) -> Run {
    finish(nemoflash(&[&["doctor"], arguments].concat()).spawn().unwrap())
}

fn json(run: &Run) -> Value {
    serde_json::from_str(&run.out).unwrap_or_else(|error| panic!("{error}: {run:?}"))
}

/// (name, result) of every check that is no operator.
fn results(json: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    json["checks"].as_array().unwrap().iter().map(|item| (text(&item["name"]), text(&item["result"]))).collect()
}

#[track_caller]
fn assert_results(run: &Run, wanted: &[(&str, &str)]) {
    let results = results(&json(run));
    let results: Vec<_> = results.iter().map(|(name, result)| (name.as_str(), result.as_str())).collect();
    assert_eq!(results, wanted, "{run:?}");
}

const FABLES: [(&str, &str); 3] = [("fables: load", "pass"), ("fables: decode", "pass"), ("fables: prefill", "pass")];

const MODEL: [&str; 4] = ["model: tensors", "model: tokenizer", "model: load", "model: answer"];

/// With the CPU alone, the model is checked and the operators are not.
fn cpu_alone(given: &[(&'static str, &'static str)]) -> Vec<(&'static str, &'static str)> {
    [&[("operators", "not_run")][..], &FABLES, given].concat()
}

#[test]
fn every_adapter_is_sound() {
    let list = finish(nemoflash(&["devices", "--json"]).spawn().unwrap()).json();
    for adapter in list["adapters"].as_array().unwrap() {
        let run = doctor(&["--adapter", &adapter["index"].to_string(), "--json"]);
        assert_eq!((run.code, run.err.as_str()), (Some(0), ""), "{run:?}");
        assert_results(&run, &FABLES);
        let json = json(&run);
        assert_eq!((&json["ok"], &json["adapter"]["driver"]), (&Value::from(true), &adapter["driver"]));
        assert!(json["caps"]["max_binding_bytes"].as_u64().unwrap() > 1 << 20);
        let operators = json["operators"].as_array().unwrap();
        let names: Vec<_> = operators.iter().map(|operator| operator["name"].as_str().unwrap()).collect();
        assert!(names.is_sorted() && ["pick", "matmul", "delta_step"].iter().all(|name| names.contains(name)));
        for operator in operators {
            assert_eq!(operator["result"], "pass", "{operator}");
            let number = |name: &str| operator[name].as_f64().unwrap();
            assert!(number("examples") >= 1.0 && number("worst_ratio") <= number("tolerance"), "{operator}");
        }
    }
}

#[test]
#[cfg(target_os = "linux")]
fn without_a_gpu_the_cpu_is_checked() {
    let mut command = nemoflash(&["doctor"]);
    command.env("VK_DRIVER_FILES", "/nonexistent").env("VK_ICD_FILENAMES", "/nonexistent");
    let run = finish(command.env_remove("VK_ADD_DRIVER_FILES").spawn().unwrap());
    assert!(run.err.starts_with("note: no usable GPU adapter") && run.err.lines().count() == 1, "{run:?}");
    assert_eq!(run.code, Some(0), "{run:?}");
    for word in ["on the CPU", "no GPU is used", "not run", "as the reference says", "3 passed, 0 failed, 1 not run"] {
        assert!(run.out.contains(word), "{word}: {run:?}");
    }
    let run = doctor(&["--device", "cpu", "--json"]);
    assert_eq!(run.code, Some(0), "{run:?}");
    assert_results(&run, &cpu_alone(&[]));
    assert_eq!(json(&run)["adapter"], Value::Null);
}

#[test]
fn a_sound_model_is_sound() {
    let folder = fables();
    let model = folder.path().to_str().unwrap();
    let run = cpu(&["doctor", "--json", "--model", model]);
    let all = MODEL.map(|name| (name, "pass"));
    assert_eq!(run.code, Some(0), "{run:?}");
    assert_results(&run, &cpu_alone(&all));
    let details = json(&run)["checks"].to_string();
    for word in ["6691016 numbers, all finite", "4096 entries", "vocabulary rows of length 0.99", "to 1.00"] {
        assert!(details.contains(word), "{word}: {details}");
    }
    // On a GPU, it must say what it says on the CPU.
    let list = finish(nemoflash(&["devices", "--json"]).spawn().unwrap()).json();
    for adapter in list["adapters"].as_array().unwrap().iter().take(1) {
        let run = doctor(&["--adapter", &adapter["index"].to_string(), "--json", "--model", model]);
        assert_eq!(run.code, Some(0), "{run:?}");
        assert_results(&run, &[&FABLES, &all[..]].concat());
        assert!(json(&run)["checks"].to_string().contains("as on the CPU"));
    }
}

/// Negative control: what is broken fails, the rest is checked all the same, and the exit code tells.
#[test]
fn a_broken_model_fails() {
    let spoiled = |spoil: &dyn Fn(&std::path::Path), words: &[&str], results: [&'static str; 4]| {
        let folder = fables();
        spoil(folder.path());
        let run = cpu(&["doctor", "--json", "--model", folder.path().to_str().unwrap()]);
        assert_eq!(run.code, Some(1), "{run:?}");
        assert!(run.err.starts_with("error: ") && run.err.contains("of the checks failed"), "{run:?}");
        let given: Vec<_> = MODEL.into_iter().zip(results).collect();
        assert_results(&run, &cpu_alone(&given));
        let details = json(&run)["checks"].to_string();
        for word in words {
            assert!(details.contains(word), "{word}: {details}");
        }
    };
    spoiled(&not_a_number, &["are NaN or infinite", "number 0 is NaN"], ["fail", "pass", "fail", "not_run"]);
    spoiled(&too_large, &["all finite", "not finite at position"], ["pass", "pass", "pass", "fail"]);
    spoiled(
        &|folder| fs::File::options().write(true).open(folder.join("model.safetensors")).unwrap().set_len(99).unwrap(),
        &["header", "the model did not load"],
        ["fail", "pass", "fail", "not_run"],
    );
    spoiled(
        &|folder| fs::remove_file(folder.join("tokenizer.json")).unwrap(),
        &["tokenizer.json is missing"],
        ["pass", "fail", "pass", "pass"],
    );
    spoiled(
        &|folder| {
            // One infinite number in the middle of a tensor.
            let path = folder.join("model.safetensors");
            let mut bytes = fs::read(&path).unwrap();
            let middle = bytes.len() / 4 * 2;
            bytes[middle..middle + 2].copy_from_slice(&0x7f80u16.to_le_bytes());
            fs::write(path, bytes).unwrap();
        },
        &["1 of ", "numbers of model.", " is inf"],
        ["fail", "pass", "fail", "not_run"],
    );
    let run = cpu(&["doctor", "--json", "--model", "/no/such/folder"]);
    assert_eq!(run.code, Some(1), "{run:?}");
    let given: Vec<_> = MODEL.into_iter().zip(["fail", "fail", "fail", "not_run"]).collect();
    assert_results(&run, &cpu_alone(&given));
}
