//! What a person or a script relies on: output, exit codes, seeds, pipes, devices, files.
#![forbid(unsafe_code)]

use crate::common::{cpu, cpu_with_stdin, fables, finish, nemoflash, root};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::Read as _;

const PROMPT: &str = "Once upon a time";

#[test]
fn greedy_text_is_the_golden_one() {
    let text = std::fs::read_to_string(root().join("tests/golden/fables.json")).unwrap();
    let golden: BTreeMap<String, String> = serde_json::from_str(&text).unwrap();
    assert!(!golden.is_empty());
    for (prompt, expected) in &golden {
        let run = |temperature| {
            let options = ["--kv", "f32", "--seed", "1", "--max-tokens", "64", "--temperature", temperature];
            cpu(&[&options[..], &["--", prompt]].concat()).ok()
        };
        // The golden text ends at a token; the binary adds a line break.
        assert_eq!(run("0").trim_end_matches('\n'), expected.trim_end_matches('\n'), "{prompt}");
        assert_ne!(run("1").trim_end_matches('\n'), expected.trim_end_matches('\n'), "the comparison cannot fail");
    }
}

#[test]
fn a_seed_gives_the_same_text() {
    let story = |arguments: &[&str]| cpu(&[&[PROMPT, "--max-tokens", "40"], arguments].concat());
    let first = story(&[]);
    let line = first.err.trim_end();
    let (_, seed) = line.trim_end_matches(']').rsplit_once("seed ").expect("the speed line tells the seed");
    assert!(line.starts_with('[') && !line.contains('\n'), "{line}");
    let again = story(&["--seed", seed]).ok();
    assert_eq!(first.out, again);
    assert_eq!(again, story(&["--top-p", "1", "--seed", seed]).ok());
    assert_ne!(again, story(&["--seed", "123456789"]).ok());
}

#[test]
fn generate_is_the_command_that_may_be_left_out() {
    let options = ["--seed", "3", "--max-tokens", "8", "--device", "cpu"];
    let run = |start: &[&str]| finish(nemoflash(&[start, &options].concat()).spawn().unwrap()).ok();
    assert_eq!(run(&[PROMPT]), run(&["generate", PROMPT]));
}

#[test]
fn json_is_one_object() {
    let all = cpu(&[PROMPT, "--json", "--seed", "5", "--max-tokens", "12"]);
    assert_eq!(all.err, "");
    let json = all.json();
    assert_eq!(json["tokens"], 12);
    assert_eq!(json["ids"].as_array().map(Vec::len), Some(12));
    assert_eq!((&json["seed"], &json["adapter"]), (&Value::from(5), &Value::from("cpu")));
    assert_eq!((&json["stop_reason"], &json["model"]), (&Value::from("length"), &Value::from("fables")));
    assert!(json["timings"]["decode_tokens_per_second"].as_f64().unwrap() > 0.0);
    let text = cpu(&[PROMPT, "--seed", "5", "--max-tokens", "12"]).ok();
    assert_eq!(text.trim_end_matches('\n'), json["text"].as_str().unwrap().trim_end_matches('\n'));
}

#[test]
fn stdin_is_a_prompt() {
    let options = ["--seed", "3", "--max-tokens", "8"];
    let expected = cpu(&[&options[..], &[PROMPT]].concat()).ok();
    for (arguments, input) in
        [(&[][..], "Once upon a time\n"), (&["-"], "Once upon a time"), (&["-"], "Once upon a time\r\n")]
    {
        assert_eq!(cpu_with_stdin(&[&options, arguments].concat(), input.as_bytes()).ok(), expected, "{input:?}");
    }
    assert_ne!(cpu_with_stdin(&options, b"Once upon a time\n\n").ok(), expected);
}

#[test]
fn an_answer_ends_for_a_reason() {
    let run = |arguments: &[&str]| cpu(&[&[PROMPT, "--json", "--temperature", "0"], arguments].concat()).json();
    let whole = run(&["--max-tokens", "30"])["text"].as_str().unwrap().to_owned();
    let (before, _) = whole.split_once("King").expect("a fairy tale has a king");
    let stopped = run(&["--stop", "nowhere to be found", "--stop", "King"]);
    assert_eq!((&stopped["text"], &stopped["stop_reason"]), (&Value::from(before), &Value::from("stop")));
    let full = run(&["--context", "10"]);
    assert_eq!((&full["stop_reason"], &full["tokens"]), (&Value::from("context"), &Value::from(7)));
}

#[test]
fn a_closed_pipe_is_no_error() {
    let mut child = nemoflash(&[PROMPT, "--device", "cpu", "--max-tokens", "2000"]).spawn().unwrap();
    let mut some = [0; 5];
    child.stdout.take().unwrap().read_exact(&mut some).unwrap();
    let run = finish(child);
    assert_eq!((run.code, run.err.as_str()), (Some(0), ""));
    // Nor is a reader of stderr that went away.
    let mut child = nemoflash(&[PROMPT, "--device", "cpu", "--max-tokens", "5"]).spawn().unwrap();
    drop(child.stderr.take());
    let run = finish(child);
    assert!(run.code == Some(0) && !run.out.is_empty(), "{run:?}");
    for arguments in [&["--help"][..], &["devices"], &["explain", "--device", "cpu"]] {
        let mut child = nemoflash(arguments).spawn().unwrap();
        drop(child.stdout.take());
        assert_eq!(finish(child).code, Some(0), "{arguments:?}");
    }
}

#[test]
#[cfg(target_os = "linux")]
fn without_an_adapter_the_cpu_runs() {
    let run = |arguments: &[&str]| {
        let mut command = nemoflash(arguments);
        command.env("VK_DRIVER_FILES", "/nonexistent").env("VK_ICD_FILENAMES", "/nonexistent");
        finish(command.env_remove("VK_ADD_DRIVER_FILES").spawn().unwrap())
    };
    let story = run(&[PROMPT, "--seed", "1", "--max-tokens", "8"]);
    assert_eq!(story.out, cpu(&[PROMPT, "--seed", "1", "--max-tokens", "8"]).ok());
    let lines: Vec<_> = story.err.lines().collect();
    assert!(lines.len() == 2 && lines[0].starts_with("note: no usable GPU adapter"), "{lines:?}");
    assert!(lines[0].contains("apt install mesa-vulkan-drivers"));
    for option in [["--device", "gpu"], ["--backend", "vulkan"], ["--adapter", "0"]] {
        run(&[PROMPT, option[0], option[1]]).refused(1, &["no usable GPU adapter", "device cpu"]);
    }
    let list = run(&["devices"]);
    assert!(list.out.contains("--device cpu") && list.err.contains("apt install"), "{list:?}");
    let none = run(&["devices", "--json"]).json();
    assert_eq!(none["adapters"].as_array().map(Vec::len), Some(0));
}

#[test]
fn every_listed_adapter_tells_a_story() {
    let list = finish(nemoflash(&["devices", "--json"]).spawn().unwrap());
    assert_eq!(list.err, "", "drivers are not heard");
    for adapter in list.json()["adapters"].as_array().unwrap() {
        let index = adapter["index"].to_string();
        let arguments =
            ["--adapter", &index, PROMPT, "--max-tokens", "4", "--temperature", "0", "--kv", "f32", "--json"];
        let run = finish(nemoflash(&arguments).spawn().unwrap());
        assert_eq!(run.err, "");
        let json = run.json();
        assert!(json["adapter"].as_str().unwrap().contains(adapter["name"].as_str().unwrap()));
        assert_eq!(json["text"], cpu(&arguments[2..]).json()["text"], "{adapter}");
    }
}

#[test]
fn explain_tells_memory_and_dispatches() {
    let json = cpu(&["explain", "--json"]).json();
    let number = |value: &Value| value.as_u64().unwrap_or_else(|| panic!("no number in {json}"));
    assert!(number(&json["dispatches_per_token"]) > 10 && number(&json["bytes_per_token"]) > 13 << 20);
    for part in ["weights", "arena", "scratch"] {
        assert!(number(&json["device_bytes"][part]) > 0);
    }
    assert_eq!(json["prefill_scan"], "serial");
    assert_eq!(cpu(&["explain", "--json", "--scan", "chunked"]).json()["prefill_scan"], "chunked");
    let page = cpu(&["explain"]).ok();
    for word in ["fables", "deltanet", "mamba2", "attention", "together", "WHY"] {
        assert!(page.contains(word), "{word}: {page}");
    }
    // It is a dry run: the largest shape is told at once, and what only weights can tell is left out.
    assert!(json.get("row_lengths").is_none());
    let start = std::time::Instant::now();
    let large = cpu(&["explain", "--json", "--arch", "nemotron-flash-3b", "--context", "29000"]).json();
    assert!(
        start.elapsed().as_secs_f64() < 5.0,
        "{:?}, where the machine has nothing else to do 0.1 s",
        start.elapsed()
    );
    assert!(number(&large["device_bytes"]["weights"]) > 5 << 30);
    // Half the precision and half the context are half the memory of keys and values.
    let arena = |arguments: &[&str]| {
        number(&cpu(&[&["explain", "--json"], arguments].concat()).json()["device_bytes"]["arena"])
    };
    assert!(arena(&["--kv", "f32"]) > arena(&[]) && arena(&[]) > arena(&["--context", "100"]));
}

#[test]
fn logits_need_no_tokenizer() {
    let folder = fables();
    std::fs::remove_file(folder.path().join("tokenizer.json")).unwrap();
    let model = folder.path().to_str().unwrap();
    let file = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (ids, a, b) = (file("ids.safetensors"), file("a.safetensors"), file("b.safetensors"));
    let bytes: Vec<u8> = [317i32, 262, 536].iter().flat_map(|id| id.to_le_bytes()).collect();
    let view = TensorView::new(Dtype::I32, vec![3], &bytes).unwrap();
    safetensors::serialize_to_file([("ids", view)], None, ids.as_ref()).unwrap();

    let common = ["logits", "--model", model, "--greedy", "5", "--json"];
    let json = cpu(&[&common[..], &["--ids", "317,262,536", "--out", &a]].concat()).json();
    cpu(&[&common[..], &["--ids-file", &ids, "--out", &b]].concat()).ok();
    let written = std::fs::read(&a).unwrap();
    assert_eq!(written, std::fs::read(&b).unwrap());
    let tensors = SafeTensors::deserialize(&written).unwrap();
    let (logits, greedy) = (tensors.tensor("logits").unwrap(), tensors.tensor("greedy").unwrap());
    assert_eq!((logits.dtype(), logits.shape()), (Dtype::F32, &[3, 4096][..]));
    assert_eq!((greedy.dtype(), greedy.shape()), (Dtype::I32, &[5][..]));
    // The first token of the continuation is the largest logit of the last row.
    let row: Vec<f32> =
        logits.data()[2 * 4096 * 4..].chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
    let best = (0..4096).max_by(|&x, &y| row[x].total_cmp(&row[y])).unwrap();
    assert_eq!(json["greedy"][0], best);

    cpu(&["logits", "--model", model, "--ids", "4096", "--out", &a]).refused(1, &["4096"]);
    cpu(&["logits", "--model", model, "--ids-file", &a, "--out", &b]).refused(1, &["I32 tensor `ids`"]);
    cpu(&["logits", "--model", model, "--ids", "1", "--out", model]).refused(1, &["cannot write"]);
    cpu(&["logits", "--ids", "1", "--out", &a, "--greedy", "9", "--context", "4"])
        .refused(1, &["--greedy 9", "only 4"]);
    cpu(&[PROMPT, "--model", model]).refused(1, &["tokenizer.json is missing"]);
}

#[test]
fn chat_reads_lines_from_a_pipe() {
    let run = |input: &str, more: &[&str]| {
        let options = ["chat", "--temperature", "0", "--max-tokens", "6", "--kv", "f32"];
        cpu_with_stdin(&[&options, more].concat(), input.as_bytes())
    };
    let plain = run("Once upon a time\n/reset\nOnce upon a time\n/exit\nnever read\n", &[]);
    let lines: Vec<_> = plain.out.lines().collect();
    assert!(lines.len() == 2 && lines[0] == lines[1], "{plain:?}");
    // Two turns of six tokens, the second without words of the user, are one of twelve.
    let json = run("Once upon a time\n\n", &["--json"]);
    let turns: Vec<Value> = json.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let together = format!("{}{}", turns[0]["text"].as_str().unwrap(), turns[1]["text"].as_str().unwrap());
    let whole = cpu(&[PROMPT, "--temperature", "0", "--max-tokens", "12", "--kv", "f32"]).ok();
    assert_eq!(together, whole.trim_end_matches('\n'));
    // The instruct format is text around the turns, and asks again behind the answer.
    let asked = run("Who are you?\nAnd you?\n", &["--json", "--format", "instruct"]);
    let turns: Vec<Value> = asked.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let first = turns[0]["text"].as_str().unwrap();
    let generate =
        |prompt: &str| cpu(&["--temperature", "0", "--max-tokens", "6", "--kv", "f32", "--json", prompt]).json();
    assert_eq!(generate("User: Who are you?\nAssistant:")["text"], first);
    let both = format!("User: Who are you?\nAssistant:{first}\nUser: And you?\nAssistant:");
    assert_eq!(generate(&both)["text"], turns[1]["text"]);
    run("a b c d e f g h\n", &["--context", "6"]).refused(1, &["the turn does not fit", "--context"]);
}

/// Commands are the words that `/help` lists. Anything else with a slash in front is a turn.
#[test]
fn every_turn_of_a_pipe_has_a_row() {
    let rows = |input: &str, more: &[&str]| {
        let options = ["chat", "--temperature", "0", "--max-tokens", "6", "--kv", "f32", "--json"];
        let run = cpu_with_stdin(&[&options, more].concat(), input.as_bytes());
        (run.code, run.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<Value>>(), run.err)
    };
    let (code, said, _) = rows("/etc/passwd\n/reset\n/no_think\n /reset \n/etc/passwd\n", &[]);
    assert_eq!((code, said.len()), (Some(0), 3));
    assert_eq!(said[0]["ids"], said[2]["ids"]);
    assert_ne!(said[0]["ids"], said[1]["ids"]);
    assert_eq!(
        cpu(&["/no_think", "--temperature", "0", "--max-tokens", "6", "--kv", "f32", "--json"]).json()["ids"],
        said[1]["ids"]
    );

    // A turn that does not fit has a row too, and what comes behind it is read.
    let long = "a b c d e f g h i j k l\n";
    let (code, said, told) = rows(&format!("Once\n{long}/reset\nOnce\n"), &["--context", "12"]);
    assert_eq!((code, said.len()), (Some(1), 3), "{told}");
    assert_eq!(said[0]["ids"], said[2]["ids"]);
    assert_eq!((&said[1]["code"], &said[1]["text"]), (&Value::from("prompt"), &Value::Null));
    assert!(
        said[1]["error"].as_str().unwrap().contains("conversation is full") && told.contains("conversation is full")
    );
}

#[test]
fn wrong_usage_is_code_2() {
    for arguments in [
        &["--no-such-option"][..],
        &["--device", "tpu", PROMPT],
        &["--max-tokens", "0", PROMPT],
        &["--max-tokens", "many", PROMPT],
        &["--temperature", "nan", PROMPT],
        &["--temperature", "-1", PROMPT],
        &["--top-p", "2", PROMPT],
        &["--repetition-penalty", "0", PROMPT],
        &["--stop", "", PROMPT],
        &["--context", "5000", PROMPT],
        &["--max-tokens", "5", "chat"],
        &["chat", "--min-p", "7"],
        &["logits", "--out", "x"],
        &["logits", "--ids", "1", "--ids-file", "x", "--out", "x"],
        &["logits", "--ids", "-1", "--out", "x"],
        &["--weights", "q3", PROMPT],
        &["--arch", "gpt", PROMPT],
        &["quantize"],
    ] {
        cpu(arguments).refused(2, &[]);
    }
    cpu(&["--arch", "missing.json", PROMPT]).refused(2, &["missing.json"]);
    cpu(&["Once", "upon", "a", "time"]).refused(2, &["`upon`", "in quotes"]);
    cpu(&[PROMPT, "--backend", "vulkan"]).refused(2, &["--backend", "--device cpu"]);
}

/// `--arch` takes any stack that a config.json describes.
#[test]
fn a_shape_from_a_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("small.json");
    let json = include_str!("../../models/fables/config.json").replace("\"f\"", "\"m2\"");
    std::fs::write(&file, json).expect("a file");
    let got = cpu(&["explain", "--json", "--arch", file.to_str().expect("a name")]).json();
    let parts = got["parts"].as_array().expect("parts");
    assert!(
        parts.iter().any(|part| part["part"] == "mamba2") && !parts.iter().any(|part| part["part"] == "ffn"),
        "{got}"
    );
    std::fs::write(&file, "{}").expect("a file");
    cpu(&["explain", "--arch", file.to_str().expect("a name")])
        .refused(2, &["architectures", "models/fables/config.json is an example"]);
}

#[test]
fn help_tells_every_option_and_exit_code() {
    for command in
        ["generate", "chat", "devices", "explain", "logits", "perplexity", "quantize", "synthesize", "verify", "doctor"]
    {
        let help = finish(nemoflash(&[command, "--help"]).spawn().unwrap()).ok();
        for word in
            ["--model", "--device", "--backend", "--adapter", "--deny", "--kv", "--json", "--context", "  130  "]
        {
            assert!(help.contains(word), "{command}: {word}");
        }
    }
    assert!(finish(nemoflash(&["--version"]).spawn().unwrap()).ok().starts_with("nemoflash "));
}
