//! Files and prompts that are wrong: each gives one clear error, never a panic, a hang or a story.
#![forbid(unsafe_code)]

use crate::common::{self, Run, cpu, cpu_with_stdin, fables, not_a_number, too_large};
use std::fs;
use std::path::Path;

const PROMPT: &str = "Once upon a time";

fn tell(folder: &Path) -> Run {
    cpu(&["--model", folder.to_str().unwrap(), "--max-tokens", "2", PROMPT])
}

/// Spoils a copy of the fables model in one way and looks at the message.
#[track_caller]
fn spoiled(words: &[&str], spoil: impl FnOnce(&Path)) {
    let folder = fables();
    spoil(folder.path());
    tell(folder.path()).refused(1, words);
}

#[test]
fn a_refusal_is_told_from_a_story() {
    let good = fables();
    let run = tell(good.path());
    assert_eq!(run.code, Some(0), "{run:?}");
    assert_eq!(run.faults(1, &["config.json"]).len(), 4);
    let panic = Run { code: Some(101), out: String::new(), err: "error: this is a bug in nemoflash".into() };
    assert_eq!(panic.faults(1, &[]).len(), 2);
}

#[test]
fn folders() {
    for name in ["no/such/folder", "../no", "no-such-folder", "a b/c"] {
        cpu(&["--model", name, PROMPT]).refused(1, &["no such folder", "owner/name", "path"]);
    }
    let good = fables();
    let file = good.path().join("model.safetensors");
    tell(&file).refused(1, &["is a file", "Give the folder"]);
    let empty = tempfile::tempdir().unwrap();
    tell(empty.path()).refused(1, &["config.json is missing", "model folder holds"]);
    for name in ["config.json", "tokenizer.json", "model.safetensors"] {
        spoiled(&[name, "is missing"], |folder| fs::remove_file(folder.join(name)).unwrap());
        spoiled(&[name, "is not a file"], |folder| {
            fs::remove_file(folder.join(name)).unwrap();
            fs::create_dir(folder.join(name)).unwrap();
        });
    }
}

#[test]
#[cfg(unix)]
fn pipes_and_devices_are_no_files() {
    for name in ["config.json", "tokenizer.json", "model.safetensors"] {
        spoiled(&[name, "is not a file"], |folder| {
            fs::remove_file(folder.join(name)).unwrap();
            std::os::unix::fs::symlink("/dev/zero", folder.join(name)).unwrap();
        });
        spoiled(&[name, "is not a file"], |folder| {
            fs::remove_file(folder.join(name)).unwrap();
            let made = std::process::Command::new("mkfifo").arg(folder.join(name)).status();
            if !made.is_ok_and(|status| status.success()) {
                fs::create_dir(folder.join(name)).unwrap();
            }
        });
    }
}

/// A folder that is not whole (a disk that is not mounted) must not look like a model that has no such file.
#[test]
#[cfg(unix)]
fn a_link_to_nothing_is_no_missing_file() {
    for name in
        ["chat_template.jinja", "generation_config.json", "tokenizer_config.json", "model.safetensors.index.json"]
    {
        let folder = fables();
        let model = folder.path().to_str().unwrap();
        std::os::unix::fs::symlink("../gone", folder.path().join(name)).unwrap();
        if name.contains("index") {
            fs::remove_file(folder.path().join("model.safetensors")).unwrap();
        }
        let chat = |more: &[&str]| {
            cpu_with_stdin(&[&["chat", "--model", model, "--max-tokens", "2"], more].concat(), b"Why?\n")
        };
        let words = [name, "leads to nothing", "delete the link"];
        chat(&[]).refused(1, &words);
        // Text without a template does not read the files of one.
        match name {
            "chat_template.jinja" | "tokenizer_config.json" => drop(chat(&["--format", "text"]).ok()),
            _ => chat(&["--format", "text"]).refused(1, &words),
        }
        // A copy must not lose the file either.
        let copy = folder.path().join("copy");
        cpu(&["quantize", "--model", model, copy.to_str().unwrap()]).refused(1, &words);
    }
}

#[test]
fn configs() {
    let with = |text: &str, words: &[&str]| {
        spoiled(&[&["config.json"], words].concat(), |folder| fs::write(folder.join("config.json"), text).unwrap());
    };
    with("", &[]);
    with("[]", &["not a JSON object"]);
    with("\u{1b}[2J", &[]);
    with(&"[".repeat(100_000), &[]);
    with(&" ".repeat(2 << 20), &["bytes"]);
    let good = fs::read_to_string(common::root().join("models/fables/config.json")).unwrap();
    let changed = |from: &str, to: &str| {
        assert!(good.contains(from), "{from}");
        good.replace(from, to)
    };
    with(&changed("\"vocab_size\": 4096", "\"vocab_size\": 0"), &["vocab_size"]);
    with(&changed("\"vocab_size\": 4096", "\"vocab_size\": 1e300"), &["vocab_size"]);
    with(&changed("\"num_hidden_layers\": 12", "\"num_hidden_layers\": 1000000000"), &["num_hidden_layers"]);
    with(&changed("\"num_attention_heads\": 4", "\"num_attention_heads\": -4"), &["num_attention_heads"]);
    with(&changed("\"deltanet\"", "\"quantum\""), &["layer_types"]);
    with(&changed("\"nemotron_flash\"", "\"llama\""), &["model_type"]);
    with(&changed("\"hidden_size\": 256", "\"hidden_size\": 512"), &["tensors do not fit"]);
    spoiled(&["config.json", "bytes"], |folder| {
        fs::File::create(folder.join("config.json")).unwrap().set_len(1 << 40).unwrap();
    });
}

#[test]
fn tokenizers() {
    let with = |text: &str| {
        spoiled(&["tokenizer.json"], |folder| fs::write(folder.join("tokenizer.json"), text).unwrap());
    };
    with("");
    with("{}");
    with(&"[".repeat(100_000));
    // The tokenizers crate panics on these two: a merge that is longer than every token, a broken map.
    with(r#"{"version":"1.0","model":{"type":"BPE","vocab":{"a":0,"b":1},"merges":["a b"]}}"#);
    with(
        r#"{"version":"1.0","normalizer":{"type":"Precompiled","precompiled_charsmap":"AAAA"},
             "model":{"type":"BPE","vocab":{"a":0},"merges":[]}}"#,
    );
}

/// Replaces the header of the weights, keeping the data.
fn header(folder: &Path, change: impl FnOnce(String) -> String) {
    let path = folder.join("model.safetensors");
    let bytes = fs::read(&path).unwrap();
    let len = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let text = String::from_utf8(bytes[8..8 + len].to_vec()).unwrap();
    let text = change(text);
    let out = [&(text.len() as u64).to_le_bytes(), text.as_bytes(), &bytes[8 + len..]].concat();
    fs::write(path, out).unwrap();
}

#[test]
fn weights() {
    let cut = |len: u64, words: &[&str]| {
        spoiled(words, |folder| {
            fs::File::options().write(true).open(folder.join("model.safetensors")).unwrap().set_len(len).unwrap();
        });
    };
    cut(0, &["checkpoint", "download"]);
    cut(5, &["checkpoint", "header"]);
    cut(8, &["checkpoint", "header"]);
    cut(100, &["checkpoint", "header"]);
    cut(5_000_000, &["5000000 bytes", "promises"]);
    cut(1 << 40, &["1099511627776 bytes", "promises"]);
    let with = |bytes: &[u8], words: &[&str]| {
        spoiled(words, |folder| fs::write(folder.join("model.safetensors"), bytes).unwrap());
    };
    with(&[0xff; 64], &["not a safetensors file"]);
    with(b"version https://git-lfs.github.com/spec/v1\n", &["Git LFS pointer"]);
    with(&[&[2, 0, 0, 0, 0, 0, 0, 0][..], b"{}"].concat(), &["missing"]);
    let lie = |words: &[&str], change: fn(String) -> String| spoiled(words, |folder| header(folder, change));
    lie(&["checkpoint", "header"], |text| text.replacen('{', "[", 1));
    lie(&["model.final_layernorm.weight", "missing"], |text| text.replace("final_layernorm", "final_layernorn"));
    lie(&["checkpoint"], |text| text.replacen("\"BF16\"", "\"F64\"", 1));
    lie(&["checkpoint"], |text| text.replacen("[0,", "[18446744073709551615,", 1));
    lie(&["do not fit", "4096"], |text| text.replace("[4096,256]", "[256,4096]").replace("[4096, 256]", "[256, 4096]"));
}

#[test]
fn weights_that_are_not_numbers() {
    spoiled(&["tensor ", "number 0 is NaN"], not_a_number);
    spoiled(&["not finite"], too_large);
    let folder = fables();
    too_large(folder.path());
    let (model, out) = (folder.path().to_str().unwrap(), folder.path().join("out"));
    let logits = ["--model", model, "logits", "--ids", "1,2", "--out", out.to_str().unwrap()];
    cpu(&logits).refused(1, &["not finite at position"]);
    assert!(!out.exists());
}

#[test]
fn indexes() {
    let with = |index: &str, words: &[&str]| {
        spoiled(words, |folder| {
            fs::rename(folder.join("model.safetensors"), folder.join("part-1.safetensors")).unwrap();
            fs::write(folder.join("model.safetensors.index.json"), index).unwrap();
        });
    };
    with("{", &["index.json"]);
    with(r#"{"weight_map":{}}"#, &["index.json", "empty"]);
    with(r#"{"weight_map":{"a":"../part-1.safetensors"}}"#, &["index.json", "../part-1.safetensors"]);
    with(r#"{"weight_map":{"a":"/etc/passwd"}}"#, &["index.json"]);
    with(r#"{"weight_map":{"a":"part-1.safetensors","b":"part-2.safetensors"}}"#, &["part-2.safetensors is missing"]);
    // And a good one runs.
    let folder = fables();
    fs::rename(folder.path().join("model.safetensors"), folder.path().join("part-1.safetensors")).unwrap();
    let index = r#"{"weight_map":{"a":"part-1.safetensors"}}"#;
    fs::write(folder.path().join("model.safetensors.index.json"), index).unwrap();
    assert_eq!(tell(folder.path()).code, Some(0));
}

#[test]
fn prompts() {
    let long = "once ".repeat(5000);
    cpu_with_stdin(&[], long.as_bytes()).refused(1, &["tokens do not fit", "4064", "context"]);
    cpu(&["--context", "3", PROMPT]).refused(1, &["tokens do not fit", "of 3"]);
    cpu_with_stdin(&[], &vec![b'a'; 3 << 20]).refused(1, &["bytes that fit", "Shorten"]);
    cpu(&[""]).refused(1, &["empty", "Write one"]);
    cpu_with_stdin(&[], b"").refused(1, &["empty"]);
    cpu_with_stdin(&["-"], b"\n").refused(1, &["empty"]);
    cpu_with_stdin(&[], b"Once \xff upon").refused(1, &["not UTF-8", "byte 6 is 0xff", "iconv"]);
    cpu_with_stdin(&[], b"Once \xe2\x82").refused(1, &["not UTF-8", "byte 6"]);
    cpu_with_stdin(&["chat"], b"Once \xff upon\n").refused(1, &["not UTF-8"]);
}
