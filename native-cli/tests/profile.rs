//! `nemoflash profile`: what both studies write, their schemas, and what is refused. No time is asserted.
#![forbid(unsafe_code)]

use crate::common::{Run, cpu, root};
use nemoflash_bench::lookup::{Part, Stack, Table, parse_blocks};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// A table of small stacks. Whether it predicts well is no matter here: times are short and the machine is busy.
const OPERATORS: [&str; 14] =
    ["profile", "operators", "--hidden", "64,128", "-b", "1,2", "-d", "0,6", "-n", "2", "-r", "2", "--vocab", "512"];
const DEPTH_WIDTH: [&str; 12] =
    ["profile", "depth-width", "--params", "300K", "--depths", "1,2,3", "-n", "2", "-r", "2", "--vocab", "512"];

fn schema(name: &str) -> jsonschema::Validator {
    let text = std::fs::read_to_string(root().join("benches").join(name)).unwrap();
    jsonschema::validator_for(&serde_json::from_str(&text).unwrap()).unwrap()
}

/// What the schema has against a value.
fn faults(schema: &jsonschema::Validator, value: &Value) -> Vec<String> {
    schema.iter_errors(value).map(|error| format!("{}: {error}", error.instance_path())).collect()
}

/// Each of these is found.
#[track_caller]
fn each_is_found(schema: &jsonschema::Validator, value: &Value, spoils: &[fn(&mut Value)]) {
    for (index, spoil) in spoils.iter().enumerate() {
        let mut spoiled = value.clone();
        spoil(&mut spoiled);
        assert!(!faults(schema, &spoiled).is_empty(), "spoil {index} obeys the schema");
    }
}

fn kept(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("profile");
    std::fs::create_dir_all(&folder).unwrap();
    folder.join(name)
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// A table that predicts badly is written all the same, and its run fails in a sentence.
#[track_caller]
fn done_or_told(run: &Run) {
    let told = run.code == Some(1) && run.err.contains("held-out measurements off by more than 10 %");
    assert!(run.code == Some(0) || told, "{run:?}");
}

#[test]
fn a_table_obeys_its_schema_and_is_read_again() {
    let [file, html] = ["operators.json", "operators.html"].map(kept);
    let paths = [file.to_str().unwrap(), html.to_str().unwrap()];
    let run = cpu(&[&OPERATORS[..], &["--file", paths[0], "--html", paths[1]]].concat());
    done_or_told(&run);
    for words in ["Microseconds that one block adds", "| Nemotron-Flash-1B's order", "largest "] {
        assert!(run.out.contains(words), "no `{words}` in {run:?}");
    }
    let value = json(&file);
    let schema = schema("operators.schema.json");
    assert_eq!(faults(&schema, &value), [""; 0]);
    let table = Table::parse(&std::fs::read(&file).unwrap()).unwrap();
    // Each kind at each size and batch, attention at both depths, and the ends.
    assert_eq!(table.entries.len(), 2 * 2 * (2 * 2 + 3 + 1));
    assert!(table.entries.iter().all(|entry| entry.seconds.is_some()), "{:?}", table.entries);
    let ffn = table.entries.iter().find(|entry| (entry.part, entry.hidden) == (Part::Ffn, 128)).unwrap();
    // Three matrices of 128 by 384, bf16, and a norm.
    assert_eq!((ffn.dims["width"], ffn.bytes, ffn.depth), (384, 3 * 128 * 384 * 2 + 128 * 4, None));
    // The sum that was held against measurements is the one of the library.
    assert!(table.held_out.len() >= 4 * 2 * 3 && table.accuracy.is_some());
    for held in &table.held_out {
        let blocks = parse_blocks(&held.blocks).unwrap();
        let stack = Stack { name: String::new(), hidden: held.hidden, blocks };
        let predicted = table.predict(&stack, held.batch, held.depth).unwrap();
        assert_eq!(Some(predicted), held.predicted);
        assert_eq!(held.error, Some(predicted / held.measured.unwrap().median - 1.0));
    }
    each_is_found(
        &schema,
        &value,
        &[
            |table| table["schema"] = "nemoflash-operators/2".into(),
            |table| table["more"] = 1.into(),
            |table| table["clock"] = "device".into(),
            |table| drop(table["entries"][0].as_object_mut().unwrap().remove("dims")),
            |table| table["entries"][0]["part"] = "dense".into(),
            |table| table["entries"][0]["seconds"] = (-1.0).into(),
            |table| table["entries"][0]["seconds"] = Value::Null,
            |table| table["entries"][0]["error"] = "there is a time all the same".into(),
            |table| table["entries"][0]["depth"] = Value::Null,
            |table| table["stacks"][0]["samples"] = json!([]),
            |table| table["stacks"][0]["blocks"] = "a b".into(),
            |table| table["held_out"][0]["measured"] = Value::Null,
            |table| table["held_out"][0]["error"] = Value::Null,
            |table| table["accuracy"]["limit"] = 0.5.into(),
        ],
    );
}

#[test]
fn depth_and_width_obey_their_schema() {
    let [file, html, points] = ["depth-width.json", "depth-width.html", "points.csv"].map(kept);
    let loss = |depth: f64, width: f64| 2.0 + 3.0 / depth + 40.0 / width.sqrt();
    let mut csv = "depth,width,loss\n".to_owned();
    for depth in [1.0, 2.0, 4.0, 8.0] {
        for width in [64.0, 128.0, 256.0] {
            csv += &format!("{depth},{width},{}\n", loss(depth, width));
        }
    }
    std::fs::write(&points, csv).unwrap();
    let more = ["--points", points.to_str().unwrap(), "--budget", "0.000001,100000"];
    let written = ["--file", file.to_str().unwrap(), "--html", html.to_str().unwrap()];
    let run = cpu(&[&DEPTH_WIDTH[..], &more, &written].concat());
    assert_eq!(run.code, Some(0), "{run:?}");
    for words in ["L(D, W) = ", "has the lowest loss by the law", "No stack keeps within"] {
        assert!(run.out.contains(words), "no `{words}` in {run:?}");
    }
    let value = json(&file);
    let schema = schema("depth-width.schema.json");
    assert_eq!(faults(&schema, &value), [""; 0]);
    let stacks = value["stacks"].as_array().unwrap();
    assert_eq!(stacks.len(), 3);
    // The law is the one that the points were made by, and the best of all stacks is the best by it.
    for stack in stacks {
        let [depth, width, by_law] = ["depth", "width", "loss"].map(|key| stack[key].as_f64().unwrap());
        assert!((by_law / loss(depth, width) - 1.0).abs() < 1e-3, "{stack}");
    }
    let least = stacks.iter().map(|stack| stack["loss"].as_f64().unwrap()).fold(f64::INFINITY, f64::min);
    assert_eq!(value["sweet_spots"][1]["loss"].as_f64(), Some(least));
    assert_eq!(value["sweet_spots"][0]["depth"], Value::Null);
    each_is_found(
        &schema,
        &value,
        &[
            |study| study["schema"] = "nemoflash-depth-width/2".into(),
            |study| study["stacks"][0]["samples"] = json!([]),
            |study| study["stacks"][0]["error"] = "there are samples all the same".into(),
            |study| study["law"]["alpha"] = 9.into(),
            |study| study["law"]["left_out"] = json!([0.1]),
            |study| study["sweet_spots"][0]["by"] = "hope".into(),
            |study| study["pattern"] = "".into(),
        ],
    );
}

#[test]
fn without_losses_only_latency_is_told() {
    let run = cpu(&[&DEPTH_WIDTH[..], &["--budget", "100000", "--pattern", "d f w f m2", "--json"]].concat());
    let value = run.json();
    assert_eq!(faults(&schema("depth-width.schema.json"), &value), [""; 0]);
    assert_eq!((&value["law"], &value["sweet_spots"][0]["by"]), (&Value::Null, &json!("parameters")));
    assert_eq!(value["pattern"], "d f w f m2");
    let text = cpu(&[&DEPTH_WIDTH[..], &["--budget", "100000"]].concat()).ok();
    assert!(text.contains("Only the latency half is known"), "{text}");
}

#[test]
fn some_kinds_alone_are_a_table_too() {
    let file = kept("kinds.json");
    let line =
        ["profile", "operators", "--hidden", "64", "--kinds", "ffn", "-d", "0", "--vocab", "512", "-n", "2", "-r", "2"];
    let run = cpu(&[&line[..], &["--skip-gate", "--file", file.to_str().unwrap()]].concat());
    assert_eq!(run.code, Some(0), "{run:?}");
    let value = json(&file);
    assert_eq!(faults(&schema("operators.schema.json"), &value), [""; 0]);
    assert_eq!((value["entries"].as_array().unwrap().len(), &value["accuracy"]), (2, &Value::Null));
    assert_eq!(value["gate"], "not_run");
    assert!(run.err.contains("only 0 held-out stacks"), "{run:?}");
}

/// Keys and values of a terabyte.
#[test]
fn what_does_not_fit_is_told() {
    let file = kept("large.json");
    let line = ["profile", "operators", "--kinds", "attention", "--hidden", "2048", "-b", "512", "-d", "1000000"];
    let more = ["--blocks", "1", "--vocab", "512", "--skip-gate", "--file", file.to_str().unwrap()];
    let run = cpu(&[&line[..], &more].concat());
    assert!(run.code == Some(1) && run.err.contains("error: nothing was measured"), "{run:?}");
    assert!(run.out.contains("- not measured: "), "{run:?}");
    let value = json(&file);
    assert_eq!(faults(&schema("operators.schema.json"), &value), [""; 0]);
    let entries = value["entries"].as_array().unwrap();
    assert!(entries.len() == 2 && entries.iter().all(|entry| entry["error"].is_string()), "{value}");
}

#[test]
fn mistakes_are_refused_before_anything_is_measured() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let few = path("few.csv", "depth,width,loss\n1,2,3\n");
    let odd = path("odd.csv", "depth,width\n1,2\n");
    let below = path("below.json", r#"[{"depth": 1, "width": 2, "loss": -3}]"#);
    for (line, code, words) in [
        (&["operators", "--html", "page.txt"][..], 2, "does not end in .html"),
        (&["operators", "--file", "/no/such/folder/x.json"], 1, "cannot write"),
        (&["operators", "--arch", "qwen3-0.6b"], 2, "`--arch` has no effect on `profile`"),
        (&["depth-width", "--points", &few], 1, "too few for the law's five constants"),
        (&["depth-width", "--points", &odd], 1, "columns depth, width and loss"),
        (&["depth-width", "--points", &below], 1, "not above 0"),
        (&["depth-width", "--points", "/no/such/file.csv"], 1, "Check the path"),
    ] {
        cpu(&[&["profile"], line].concat()).refused(code, &[words]);
    }
}
