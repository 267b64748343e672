//! `nemoflash bench`: rows of every format, what is kept of a run that ends early, and the schema. No time is asserted.
#![forbid(unsafe_code)]

use crate::common::{Run, cpu, finish, nemoflash, root};
use nemoflash_bench::report::{Gate, Kind, Report, Row, SCHEMA};
use serde_json::{Value, json};

/// Short tests of fables.
const SHORT: [&str; 8] = ["bench", "-p", "8", "-n", "4", "-r", "2", "--profile=2"];

fn schema(part: &str) -> jsonschema::Validator {
    let text = std::fs::read_to_string(root().join("benches/report.schema.json")).unwrap();
    let mut schema: Value = serde_json::from_str(&text).unwrap();
    schema["$ref"] = format!("#/$defs/{part}").into();
    jsonschema::validator_for(&schema).unwrap()
}

/// What the schema has against a value.
fn faults(schema: &jsonschema::Validator, value: &Value) -> Vec<String> {
    schema.iter_errors(value).map(|error| format!("{}: {error}", error.instance_path())).collect()
}

/// The rows of JSON lines, each of which obeys the schema.
#[track_caller]
fn rows(out: &str) -> Vec<Row> {
    let schema = schema("row");
    let row = |line: &str| {
        let value: Value = serde_json::from_str(line).unwrap();
        assert_eq!(faults(&schema, &value), [""; 0], "{line}");
        serde_json::from_value(value).unwrap()
    };
    out.lines().map(row).collect()
}

fn names(rows: &[Row]) -> Vec<&str> {
    rows.iter().map(|row| row.test.name.as_str()).collect()
}

#[test]
fn json_obeys_its_schema() {
    let more = ["-d", "0,3", "-b", "1,2", "--pg", "5,3", "--json"];
    let run = cpu(&[&SHORT[..], &more].concat());
    assert!(run.err.is_empty(), "{run:?}");
    let value = run.json();
    let schema = schema("report");
    assert_eq!(faults(&schema, &value), [""; 0]);
    let report: Report = serde_json::from_value(value.clone()).unwrap();
    let each = ["", " b2", " @ d3", " @ d3 b2"]
        .iter()
        .flat_map(|at| ["pp8", "tg4", "pp5+tg3"].map(|test| test.to_owned() + at));
    let wanted: Vec<String> = ["load".to_owned(), "first token".to_owned()].into_iter().chain(each).collect();
    assert_eq!(names(&report.rows), wanted);
    for row in &report.rows {
        assert_eq!((row.schema.as_str(), row.gate, row.time.samples.len()), (SCHEMA, Gate::Passed, 2));
        assert_eq!((row.device.backend.as_str(), row.model.name.as_str()), ("cpu", "fables"));
        assert!(row.operators.is_empty() && row.model.weight_bytes > 10 << 20, "{row:?}");
        let gaps = if row.test.kind == Kind::Decode { 2 * row.test.tokens as usize } else { 0 };
        assert_eq!((row.time.token_samples.len(), row.time.token_seconds.is_some()), (gaps, gaps > 0), "{row:?}");
        let rated = !matches!(row.test.kind, Kind::Load | Kind::FirstToken);
        assert_eq!(row.time.tokens_per_second.is_some(), rated, "{row:?}");
        let alone = row.test.kind == Kind::Decode && row.test.batch == 1;
        assert_eq!((row.time.bytes_per_second.is_some(), row.time.bandwidth_share), (alone, None), "{row:?}");
    }
    // Negative control: each of these is found.
    type Spoil = fn(&mut Value);
    let spoils: [Spoil; 9] = [
        |report| report["schema"] = "nemoflash-bench/2".into(),
        |report| report["more"] = 1.into(),
        |report| drop(report["rows"][0].as_object_mut().unwrap().remove("gate")),
        |report| report["rows"][0]["gate"] = "fine".into(),
        |report| report["rows"][1]["date"] = "yesterday".into(),
        |report| report["rows"][1]["test"]["name"] = "pp-8".into(),
        |report| report["rows"][2]["time"]["samples"] = json!([1, "2"]),
        |report| report["rows"][2]["time"]["samples"] = json!([]),
        |report| report["rows"][2]["error"] = "there are samples all the same".into(),
    ];
    for (index, spoil) in spoils.iter().enumerate() {
        let mut spoiled = value.clone();
        spoil(&mut spoiled);
        assert!(!faults(&schema, &spoiled).is_empty(), "spoil {index} is not found");
    }
}

#[test]
fn a_file_has_the_format_and_stdout_the_table() {
    let folder = tempfile::tempdir().unwrap();
    let few = ["--skip", "gate,load,compile", "-o"];
    for format in ["md", "csv", "json", "jsonl"] {
        let path = folder.path().join(format);
        let run = cpu(&[&SHORT[..], &few, &[format, "--file", path.to_str().unwrap()]].concat());
        assert_eq!(run.code, Some(0), "{run:?}");
        let out = &run.out;
        let lines: Vec<&str> = out.lines().collect();
        assert!(lines.len() == 7 && lines[0].starts_with("| model ") && lines[6].starts_with("nemoflash "), "{out}");
        assert_eq!(run.err.contains("this is a debug build"), cfg!(debug_assertions), "{}", run.err);
        for (line, test) in lines[2..].iter().zip(["first token", "pp8", "tg4"]) {
            assert!(line.contains(&format!("| {test} ")) && line.contains("| -      |"), "{line}");
            assert_eq!(line.chars().count(), lines[0].chars().count(), "{out}");
        }
        let text = std::fs::read_to_string(path).unwrap();
        match format {
            "csv" => {
                let lines: Vec<&str> = text.lines().collect();
                let columns = |line: &str| line.split(',').count();
                assert!(lines.len() == 4 && lines[0].contains(",test.name,"), "{text}");
                assert!(
                    lines[2].contains(",pp8,prefill,8,0,0,1,wall,") && columns(lines[2]) == columns(lines[0]),
                    "{text}"
                );
            }
            "json" => assert_eq!(serde_json::from_str::<Report>(&text).unwrap().rows.len(), 3),
            "jsonl" => assert_eq!(names(&rows(&text)), ["first token", "pp8", "tg4"]),
            _ => assert_eq!(text.lines().count(), 5),
        }
    }
    cpu(&[&SHORT[..], &["--file", "/no/such/folder/x"]].concat()).refused(1, &["cannot write /no/such/folder/x"]);
}

/// One command: rows, and the page that compares them.
#[test]
fn the_page_is_written_with_the_rows() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("page.html");
    let write = |more: &[&str]| {
        let run = cpu(&[&SHORT[..], &["--html", path.to_str().unwrap()], more].concat());
        assert_eq!(run.code, Some(0), "{run:?}");
        assert!(run.err.ends_with(&format!("[wrote {}]\n", path.display())), "{run:?}");
        (run.out, std::fs::read_to_string(&path).unwrap())
    };
    let (out, page) = write(&[]);
    // One device has nobody to agree with.
    assert!(!out.contains("tokens:"), "{out}");
    for words in
        ["<h2>The same tokens</h2>", "<td>right</td><td>32 tokens</td>", "<th scope=\"row\">tg4</th>", "this run"]
    {
        assert!(page.contains(words), "{words} is not in the page");
    }
    // Negative control: what was not asked is not told. What is JSON stays JSON.
    let (out, page) = write(&["--skip=gate", "--json"]);
    assert_eq!(serde_json::from_str::<Report>(&out).unwrap().rows.len(), 4);
    assert!(!page.contains("The same tokens") && page.contains("not checked"));
    cpu(&["bench", "--html", "page.json"]).refused(2, &["--html page.json does not end in .html"]);
}

/// A system may promise more memory than it has: what would be too much is refused before it is taken.
#[test]
#[cfg(target_os = "linux")]
fn more_memory_than_there_is_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let small = folder.path().join("small.json");
    std::fs::copy(root().join("models/fables/config.json"), &small).unwrap();
    let arch = ["bench", "--arch", small.to_str().unwrap(), "-p0", "-n4", "-r1", "--skip=gate,load"];
    let run = |more: &[&str]| cpu(&[&arch[..], more].concat());
    let words = ["memory of 512 slots of 16", "free memory", "Use a shorter context, fewer slots"];
    run(&["-d16000000", "-b512"]).refused(1, &words);
    // Negative control.
    assert!(run(&["-d8", "-b2"]).ok().contains("| tg4 @ d8 b2 "));
}

/// The paper's table, of a small shape: one sequence alone, and several behind a text.
#[test]
fn the_tests_of_the_paper() {
    let folder = tempfile::tempdir().unwrap();
    let small = folder.path().join("small.json");
    std::fs::copy(root().join("models/fables/config.json"), &small).unwrap();
    let line = ["bench", "paper", "--arch", small.to_str().unwrap(), "-d", "8", "-r", "1", "--output", "jsonl"];
    for (more, wanted) in
        [(&["-n", "4", "-b", "3"][..], ["tg4", "tg4 @ d8 b3"]), (&["-n", "1"], ["tg1", "tg1 @ d8 b8"])]
    {
        let rows = rows(&cpu(&[&line[..], more].concat()).ok());
        assert_eq!(names(&rows), wanted);
        assert!(
            rows.iter().all(|row| row.model.synthetic && row.gate == Gate::Passed && row.error.is_none()),
            "{rows:?}"
        );
    }
    cpu(&["bench", "paper", "--model", "x"]).refused(2, &["--model"]);
}

#[test]
fn wrong_numbers_are_refused_or_are_rows() {
    let refused = |more: &[&str], code, word| cpu(&[&["bench"], more].concat()).refused(code, &[word]);
    refused(&["-r", "0"], 2, "--repetitions");
    refused(&["--model", "/no/such/model"], 1, "no such folder");
    // Longer than the model was made for.
    refused(&["--skip", "gate", "-n", "9999999"], 2, "context");
}

/// On every adapter: golden tokens, kernels compiled, operators where the device can tell, and another process for each
/// feature that can be left out.
#[test]
fn adapters_are_measured_with_and_without_their_features() {
    let list = finish(nemoflash(&["devices", "--json"]).spawn().unwrap()).json();
    let Some(adapter) = list["adapters"].as_array().unwrap().first() else { return };
    let index = adapter["index"].to_string();
    let run = [&SHORT[..], &["--adapter", &index, "--sweep", "-o", "jsonl", "--skip", "load"]].concat();
    let run = finish(nemoflash(&run).spawn().unwrap());
    let rows = rows(&run.out);
    assert_eq!(run.code, Some(0), "{run:?}");
    let each = ["compile", "first token", "pp8", "tg4"];
    assert_eq!(rows.len() % each.len(), 0, "{run:?}");
    for (index, rows) in rows.chunks(each.len()).enumerate() {
        assert_eq!(names(rows), each);
        for row in rows {
            assert_eq!((row.gate, &row.device.adapter), (Gate::Passed, &rows[0].device.adapter));
            assert_eq!((row.device.denied.len(), row.error.as_ref()), (index.min(1), None));
        }
        let [_, first, prefill, decode] = rows else { unreachable!() };
        assert!(decode.time.bandwidth_share.is_some_and(|share| share > 0.0), "{decode:?}");
        let dispatches: u32 = decode.operators.iter().map(|operator| operator.dispatches).sum();
        if dispatches > 0 {
            assert_eq!(u64::from(dispatches), decode.model.dispatches_per_token);
            assert!(decode.operators.is_sorted_by(|a, b| a.seconds >= b.seconds), "{decode:?}");
            for row in [prefill, decode] {
                assert!(row.time.busy_share.is_some_and(|share| share > 0.0), "{row:?}");
            }
            assert!(!first.operators.is_empty() && first.time.busy_share.is_none(), "{first:?}");
        }
    }
    let used = &rows[0].device;
    let features = [used.f16, used.subgroup.is_some(), used.coopmat].iter().filter(|used| **used).count();
    assert_eq!(rows.len(), each.len() * (1 + features));
}

/// The CPU's process dies in front of its second test.
#[test]
#[cfg(debug_assertions)]
fn a_crash_costs_no_row_of_another_test() {
    let mut command = nemoflash(&[
        "bench",
        "-p0",
        "-n4,5,6",
        "-r1",
        "--profile=0",
        "--skip=gate,load,compile",
        "--all-backends",
        "-ojsonl",
    ]);
    let run = finish(command.env("NEMOFLASH_BENCH_CRASH", "cpu").spawn().unwrap());
    assert_eq!(run.code, Some(1), "{run:?}");
    assert!(run.err.contains("rows have no result") && !run.err.contains("bug in"), "{run:?}");
    let rows = rows(&run.out);
    let (cpu, gpus): (Vec<Row>, Vec<Row>) = rows.into_iter().partition(|row| row.device.backend == "cpu");
    // What it wrote before is kept, and each test that it did not come to says so.
    assert_eq!(names(&cpu), ["tg4", "tg5", "tg6"]);
    assert!(cpu.iter().all(|row| row.model.name == "fables" && row.device == cpu[0].device));
    let errors: Vec<_> = cpu.iter().map(|row| row.error.as_deref().unwrap_or_default()).collect();
    assert_eq!(errors[0], "");
    for words in ["the process that measured it ended by", "Update the driver"] {
        assert!(errors[1].contains(words), "{errors:?}");
    }
    for words in ["not run: the device failed before, in `tg5`", "in a run of its own"] {
        assert!(errors[2].contains(words), "{errors:?}");
    }
    // Every adapter that vulkan, metal and dx12 have was measured, and nothing else went wrong there.
    let list = finish(nemoflash(&["devices", "--json"]).spawn().unwrap()).json();
    let fine = gpus.iter().filter(|row| row.device.backend != "gl" && row.test.name == "tg6" && row.error.is_none());
    assert_eq!(fine.count(), list["adapters"].as_array().unwrap().len(), "{gpus:?}");
    // Negative control: without the crash, all rows are there.
    let command = ["bench", "-p0", "-n4,5,6", "-r1", "--skip=gate,load", "--device=cpu", "--sweep", "-ojsonl"];
    let run: Run = finish(nemoflash(&command).spawn().unwrap());
    assert_eq!(names(&self::rows(&run.ok())), ["tg4", "tg5", "tg6"]);
}

#[cfg(unix)]
mod interrupted {
    use super::*;
    use rustix::process::{Pid, Signal, kill_process};
    use std::io::{BufRead as _, BufReader, Read as _};
    use std::os::unix::fs::PermissionsExt as _;
    use std::process::Child;

    const ENDLESS: [&str; 6] = ["bench", "-p0", "-n4,4000", "-r9", "--profile=0", "--skip=gate,load,compile"];

    /// Ctrl-C after the first row; code, stdout with that row in front, and stderr. `before` is called in front of it.
    fn interrupt(mut child: Child, rows_on: fn(&str) -> bool, before: impl FnOnce()) -> (Option<i32>, String, String) {
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut err = child.stderr.take().unwrap();
        let mut text = String::new();
        while !text.lines().any(rows_on) {
            assert!(out.read_line(&mut text).unwrap() > 0, "{text}");
        }
        before();
        kill_process(Pid::from_child(&child), Signal::INT).unwrap();
        out.read_to_string(&mut text).unwrap();
        let mut said = String::new();
        err.read_to_string(&mut said).unwrap();
        (child.wait().unwrap().code(), text, said)
    }

    fn run(more: &[&str]) -> Child {
        nemoflash(&[&ENDLESS[..], more].concat()).spawn().unwrap()
    }

    fn row(line: &str) -> bool {
        line.contains("tg4")
    }

    #[test]
    fn rows_so_far_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let [file, page] = ["report.json", "report.html"].map(|name| folder.path().join(name));
        for more in [&["-ojsonl"][..], &["-ojsonl", "--sweep"]] {
            let (code, out, err) = interrupt(run(&[&["--device=cpu"], more].concat()), row, || {});
            assert_eq!((code, err.as_str(), names(&rows(&out)).join(" ").as_str()), (Some(130), "", "tg4"), "{out}");
        }
        let more = ["--device=cpu", "-ojson", "--file", file.to_str().unwrap(), "--html", page.to_str().unwrap()];
        let (code, out, _) = interrupt(run(&more), row, || {});
        assert_eq!((code, out.lines().count()), (Some(130), 5), "{out}");
        let report: Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
        assert_eq!((faults(&schema("report"), &report), report["rows"].as_array().unwrap().len()), (vec![], 1));
        assert!(std::fs::read_to_string(page).unwrap().contains("stopped by Ctrl-C: what was not measured"));
    }

    /// Processes whose arguments have this word.
    #[cfg(target_os = "linux")]
    fn processes(word: &str) -> usize {
        let all = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
        let lines = all.filter_map(|process| std::fs::read_to_string(process.path().join("cmdline")).ok());
        lines.filter(|line| line.contains(word)).count()
    }

    /// In the middle of the first device of all: its rows are kept, and its process ends with the one that was asked.
    #[test]
    #[cfg(target_os = "linux")]
    fn no_process_is_left() {
        // Nobody else measures so many.
        let tokens = format!("4,{}", 2000 + std::process::id() % 2000);
        let child =
            nemoflash(&["bench", "-p0", "-n", &tokens, "--skip=gate,load,compile", "--all-backends", "-ojsonl"])
                .spawn()
                .unwrap();
        let (code, out, err) = interrupt(child, row, || assert_eq!(processes(&tokens), 2));
        let rows = rows(&out);
        assert_eq!((code, err.as_str(), names(&rows), rows[0].error.as_ref()), (Some(130), "", vec!["tg4"], None));
        assert_eq!(processes(&tokens), 0);
    }

    /// A browser that a script started goes with the script.
    #[test]
    #[cfg(target_os = "linux")]
    fn no_browser_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let [page, browser, begun] = ["page", "browser", "begun"].map(|name| folder.path().join(name));
        std::fs::create_dir(&page).unwrap();
        std::fs::write(page.join("index.html"), "").unwrap();
        let seconds = (100_000 + std::process::id()).to_string();
        let script = format!("#!/bin/sh\necho > '{}'\nsleep {seconds}\nexit 1\n", begun.display());
        std::fs::write(&browser, script).unwrap();
        std::fs::set_permissions(&browser, std::fs::Permissions::from_mode(0o755)).unwrap();
        let child = nemoflash(&["bench", "--device=cpu", "-p0", "-n4", "-r1", "--skip=gate,load", "-ojsonl"])
            .arg(format!("--browser={}", browser.display()))
            .arg("--page")
            .arg(&page)
            .spawn()
            .unwrap();
        let sleeps = || processes(&format!("sleep\0{seconds}"));
        let (code, out, err) = interrupt(child, row, || {
            while !begun.exists() || sleeps() == 0 {
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
        });
        assert_eq!((code, err.as_str(), names(&rows(&out)).join(" ").as_str()), (Some(130), "", "tg4"), "{out}");
        assert_eq!(sleeps(), 0);
    }
}
