//! `nemoflash compare`, on results made from the format's own types.

use crate::common::samples::{self, around, cpu as slow, decode, fables, h100, json, jsonl, llvmpipe, row};
use crate::common::{Run, finish, nemoflash};
use nemoflash_bench::report::{Clock, Gate, Row};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

fn compare(folder: &Path, arguments: &[&str]) -> Run {
    finish(nemoflash(&[&["compare"], arguments].concat()).current_dir(folder).spawn().expect("the binary runs"))
}

/// A folder with these files.
fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for (name, text) in files {
        fs::write(folder.path().join(name), text).expect("a file");
    }
    folder
}

/// Where the suite of pages finds results too. Written once: a test must not read what another one is writing.
fn shared() -> &'static Path {
    static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("compare");
        fs::create_dir_all(&folder).expect("a folder");
        for (name, text) in samples::files() {
            fs::write(folder.join(name), text).expect("a file");
        }
        fs::write(folder.join("hostile.json"), json(vec![hostile(h100()), hostile(llvmpipe())])).expect("a file");
        folder
    });
    &FOLDER
}

const HOSTILE: &str =
    "<script>alert(1)</script>\"'><img src=https://evil.example/x onerror=alert(1)>{{ 7*7 }}\u{1b}[2J";

/// Such texts wherever a file can have one.
fn hostile(mut machine: samples::Machine) -> Row {
    let text = || HOSTILE.to_owned();
    machine.device.driver = text();
    machine.device.denied = vec![text()];
    machine.device.backend = text();
    machine.device.adapter += HOSTILE;
    machine.software.commit = Some(text());
    machine.software.host = text();
    machine.software.runtime = text();
    let mut model = fables();
    model.name = text();
    let mut row = row(&machine, &model, decode(0), around(0.02, 6));
    row.test.name = text();
    row.date = text();
    row.warnings = vec![text()];
    row.operators[0].part = text();
    row.operators[0].kernel = text();
    row.operators[0].op = text();
    row
}

#[test]
fn a_table_of_tests_and_devices() {
    let folder = shared();
    let out = compare(folder, &["h100.json", "software.jsonl", "swiftshader.json"]).ok();
    for label in [
        "A  NVIDIA H100 80GB HBM3, vulkan, native\n",
        "B  NVIDIA H100 80GB HBM3, vulkan, native, without coopmat\n",
        "C  llvmpipe, vulkan, native\n",
        "D  CPU, native\n",
        "F  google swiftshader, webgpu, Chromium 143\n",
    ] {
        assert!(out.contains(label), "no {label:?} in\n{out}");
    }
    let groups = ["\nfables, bf16, KV in f16\n", "\nnemotron-flash-1b, bf16, KV in f16, random weights\n"];
    for group in groups {
        assert!(out.contains(group), "no {group:?} in\n{out}");
    }
    assert!(out.contains("x slower (") && out.contains("baseline"), "{out}");
    assert!(out.contains("\nfailed: the device was lost in the middle of a step\n  F tg128 @ d4096\n"), "{out}");
    assert!(out.contains("with -r\n  C tg128\n"), "{out}");
    // A column stands only in the tables that have it, and lines end without spaces.
    let one_billion = out.split("nemotron-flash-1b").nth(1).unwrap();
    assert!(!one_billion.contains("llvmpipe"), "{out}");
    assert!(out.lines().all(|line| line == line.trim_end()), "{out}");
}

/// The verdict of the second of two devices with these samples.
fn verdict(first: Vec<f64>, second: Vec<f64>) -> String {
    let rows = [row(&h100(), &fables(), decode(0), first), row(&slow(), &fables(), decode(0), second)];
    let folder = folder(&[("a.jsonl", &jsonl(&rows))]);
    let data = compare(folder.path(), &["a.jsonl", "--json"]).json();
    data["groups"][0]["tests"][0]["cells"][1]["verdict"].as_str().expect("a verdict").to_owned()
}

#[test]
fn verdicts_on_known_samples() {
    assert!(verdict(around(1.8, 6), around(1.0, 6)).starts_with("1.8"), "{}", verdict(around(1.8, 6), around(1.0, 6)));
    assert!(verdict(around(1.8, 6), around(1.0, 6)).contains("x faster (1."));
    assert!(verdict(around(1.0, 6), around(1.8, 6)).contains("x slower (1."));
    // Negative control: the same samples in another order, and noise around one value.
    let mut turned = around(1.0, 6);
    turned.reverse();
    assert!(verdict(around(1.0, 6), turned).starts_with("no difference ("));
    assert!(verdict(around(1.0, 6), around(1.003, 6)).starts_with("no difference ("));
    assert!(verdict(around(1.8, 3), around(1.0, 3)).contains("too few samples"));
}

#[test]
fn data_has_columns_values_and_ratios() {
    let folder = shared();
    let data = compare(folder, &["--json", "h100.json", "software.jsonl"]).json();
    assert_eq!(data["schema"], "nemoflash-compare/1");
    assert_eq!(data["columns"][2]["device"]["adapter"], "llvmpipe (LLVM 19.1.7, 256 bits)");
    assert_eq!(data["columns"][2]["file"], "software.jsonl");
    let line = &data["groups"][0]["tests"][0];
    assert_eq!((line["test"]["name"].as_str(), line["unit"].as_str()), (Some("tg128"), Some("tokens/s")));
    assert!(line["cells"][0]["ratio"].is_null() && line["cells"][1].is_null());
    let ratio = line["cells"][2]["ratio"]["times"].as_f64().unwrap();
    assert!((0.01..0.0125).contains(&ratio), "{ratio}");
}

#[test]
fn wrong_programs_and_clocks_are_not_compared() {
    let base = row(&h100(), &fables(), decode(0), around(0.02, 6));
    let mut wrong = row(&llvmpipe(), &fables(), decode(0), around(0.01, 6));
    wrong.gate = Gate::Failed;
    let mut device = base.clone();
    device.time.clock = Clock::Device;
    let again = base.clone();
    let folder = folder(&[("a.json", &json(vec![base, wrong, device, again]))]);
    let data = compare(folder.path(), &["a.json", "--json"]).json();
    let cells = &data["groups"][0]["tests"][0]["cells"];
    assert!(cells[1]["verdict"].as_str().unwrap().starts_with("wrong tokens") && cells[1]["ratio"].is_null());
    // The device's clock has a column of its own, and nothing to be held against.
    assert!(cells[2]["verdict"] == "" && cells[2]["ratio"].is_null());
    assert!(data["columns"][2]["label"].as_str().unwrap().contains("device clock"));
    // A test that comes again is another run.
    assert!(cells[3]["verdict"].as_str().unwrap().starts_with("no difference"));
    let labels = [0, 3].map(|at| data["columns"][at]["label"].as_str().unwrap().to_owned());
    assert!(labels[0].ends_with(", run 1") && labels[1].ends_with(", run 2"), "{labels:?}");
}

/// What the table says of devices with these tokens, and the page.
fn agreement(said: &[(&[u32], Gate)]) -> (String, String) {
    let machines = [h100(), llvmpipe(), slow()];
    let row = |(machine, (said, gate)): (&samples::Machine, &(&[u32], Gate))| {
        let row = row(machine, &fables(), decode(0), around(0.02, 6));
        Row { said: said.to_vec(), gate: *gate, ..row }
    };
    let folder = folder(&[("a.json", &json(machines.iter().zip(said).map(row).collect()))]);
    let out = compare(folder.path(), &["a.json", "--html", "a.html"]).ok();
    (out, fs::read_to_string(folder.path().join("a.html")).unwrap())
}

#[test]
fn devices_are_held_against_each_other() {
    use Gate::{Failed, NotRun, Passed};
    // A device with a shorter context gives fewer tokens. Only those are compared.
    let (out, page) = agreement(&[(&[5, 6, 7, 8], Passed), (&[5, 6, 7], Passed), (&[5, 6, 7, 8], NotRun)]);
    assert!(out.contains("\nAll 3 devices say the same 3 tokens.\n"), "{out}");
    for words in ["<td>right</td><td>4 tokens</td>", "<td>right</td><td>the same 3 as A</td>", "<td>not checked</td>"] {
        assert!(page.contains(words), "no {words}");
    }
    assert!(!page.contains("DIFFERENT from") && page.contains("<li>All 3 devices say the same 3 tokens.</li>"));
    // Negative control: another token, first at the end and then before it; and wrong golden tokens, which nobody is held against.
    let (out, page) = agreement(&[(&[9, 9], Failed), (&[5, 6, 7], Passed), (&[5, 6, 8], Passed)]);
    let words = "Not all devices say the same tokens. These differ from llvmpipe, vulkan, native: NVIDIA H100 80GB HBM3, \
                 vulkan, native from token 1 on, CPU, native from token 3 on.";
    assert!(out.contains(words), "{out}");
    assert!(page.contains("<td class=\"bad\">WRONG</td><td class=\"bad\">DIFFERENT from B, from token 1 of 2 on</td>"));
    assert!(page.contains("<td>right</td><td class=\"bad\">DIFFERENT from B, from token 3 of 3 on</td>"));
    // Older files have no tokens, and one device alone has no other to agree with.
    let (out, page) = agreement(&[(&[], NotRun), (&[], NotRun)]);
    assert!(!out.contains("devices say") && !page.contains("The same tokens"), "{out}");
    let (out, _) = agreement(&[(&[], NotRun), (&[1, 2], NotRun)]);
    assert!(
        out.contains(
            "Only llvmpipe, vulkan, native gave tokens: there are no others to compare them with; 1 gave none."
        ),
        "{out}"
    );
}

#[test]
fn what_differs_is_named() {
    let mut newer = h100();
    newer.software.commit = Some("0123456789abcdef".into());
    let row = |machine| row(machine, &fables(), decode(0), around(0.02, 6));
    let folder = folder(&[
        ("a.jsonl", &jsonl(&[row(&h100())])),
        ("b.jsonl", &jsonl(&[row(&newer)])),
        ("c.jsonl", &jsonl(&[row(&newer)])),
    ]);
    let out = compare(folder.path(), &["a.jsonl", "b.jsonl", "c.jsonl"]).ok();
    assert!(out.contains("native, commit b50d1d9c0ffe, a.jsonl\n"), "{out}");
    assert!(out.contains("native, commit 0123456789ab…, b.jsonl\n"), "{out}");
    assert!(out.contains("native, commit 0123456789ab…, c.jsonl\n"), "{out}");
}

#[test]
fn a_cut_last_line_is_a_note() {
    let lines = jsonl(&samples::rows(&h100(), &fables()));
    let cut = &lines[..lines.len() - 100];
    let folder = folder(&[("a.jsonl", cut), ("middle.jsonl", &format!("{cut}\n{lines}"))]);
    let run = compare(folder.path(), &["a.jsonl"]);
    assert_eq!(run.code, Some(0), "{run:?}");
    assert!(run.err.contains("note: a.jsonl, line 6 is cut off and left out"), "{run:?}");
    // Negative control: in the middle it is an error.
    compare(folder.path(), &["middle.jsonl"]).refused(1, &["middle.jsonl, line 6 is not JSON"]);
}

#[test]
fn bad_files_are_refused() {
    let good = json(samples::rows(&h100(), &fables()));
    let other = good.replace("nemoflash-bench/1", "nemoflash-bench/2");
    let line = jsonl(&[row(&h100(), &fables(), decode(0), vec![1.0, -1.0])]);
    let many = jsonl(&[row(&h100(), &fables(), decode(0), around(1.0, 1001))]);
    let mut named = row(&h100(), &fables(), decode(0), around(1.0, 6));
    named.model.name = "x".repeat(201);
    let named = jsonl(&[named]);
    let one = row(&h100(), &fables(), decode(0), around(1.0, 1));
    let (rows, runs) = (jsonl(&vec![one.clone(); 2001]), jsonl(&vec![one; 65]));
    let deep = "[".repeat(100_000);
    let cases = [
        (
            "other.json",
            other.as_str(),
            "is of schema `nemoflash-bench/2`, and this nemoflash reads `nemoflash-bench/1`",
        ),
        ("cut.json", &good[..good.len() - 3], "is not JSON"),
        ("none.json", "{}", "has no `schema`"),
        ("empty.jsonl", "", "has no rows"),
        ("text.md", "| model | tg128 |\n|---|---|\n", "is not JSON"),
        ("deep.json", &deep, "is not JSON"),
        ("field.json", r#"{"schema":"nemoflash-bench/1","rows":[{}]}"#, "is not what its schema says"),
        ("negative.jsonl", &line, "row 1 has a time that is not positive"),
        ("many.jsonl", &many, "row 1 has more than 1000 samples"),
        ("named.jsonl", &named, "row 1 has a name of more than 200 bytes"),
        ("rows.jsonl", &rows, "more than 2000 rows"),
        ("huge.jsonl", r#"{"schema":"nemoflash-bench/1","x":1e999}"#, "huge.jsonl"),
    ];
    let folder = folder(&cases.map(|(name, text, _)| (name, text)));
    for (name, _, words) in cases {
        compare(folder.path(), &[name]).refused(1, &[name, words]);
    }
    fs::write(folder.path().join("runs.jsonl"), runs).unwrap();
    compare(folder.path(), &["runs.jsonl"]).refused(1, &["more than 64 devices and runs"]);
    fs::write(folder.path().join("latin.json"), b"\xff").unwrap();
    compare(folder.path(), &["latin.json"]).refused(1, &["not UTF-8"]);
    compare(folder.path(), &["missing.json"]).refused(1, &["missing.json"]);
    compare(folder.path(), &["."]).refused(1, &["is not a file"]);
    compare(folder.path(), &[]).faults(2, &["<FILE>"]);
    let large = fs::File::create(folder.path().join("large.json")).unwrap();
    large.set_len((64 << 20) + 1).unwrap();
    compare(folder.path(), &["large.json"]).refused(1, &["more than 64 MiB"]);
    // A page never goes over results.
    compare(folder.path(), &["--html", "other.json", "cut.json"]).refused(2, &["does not end in .html"]);
}

/// What is wrong with a page: addresses, scripts, markup from files.
fn faults(page: &str) -> Vec<&'static str> {
    let lower = page.to_lowercase();
    let bad = [
        "http:",
        "https:",
        "<script",
        "<img",
        "javascript:",
        " style=",
        " src=",
        "url(",
        "@import",
        "<link",
        "<iframe",
    ];
    // In escaped text, a name of an attribute is only a word.
    let lower = lower.replace("src=https:&#x2f;&#x2f;evil.example&#x2f;x", "").replace("&lt;img ", "");
    bad.into_iter().filter(|word| lower.contains(word)).collect()
}

#[test]
fn the_page_needs_nothing_and_escapes_everything() {
    let folder = shared();
    let pages = [
        (vec!["h100.json", "software.jsonl", "swiftshader.json"], "full.html"),
        (vec!["hostile.json"], "hostile.html"),
        (vec!["software.jsonl"], "software.html"),
    ];
    for (files, html) in pages {
        compare(folder, &[&files[..], &["--html", html]].concat()).ok();
        let page = fs::read_to_string(folder.join(html)).unwrap();
        assert!(page.starts_with("<!doctype html>") && page.trim_end().ends_with("</html>"));
        assert!(page.contains("default-src 'none'; style-src 'sha256-"));
        assert_eq!(faults(&page), Vec::<&str>::new(), "{html}");
    }
    let hostile = fs::read_to_string(folder.join("hostile.html")).unwrap();
    assert!(hostile.contains("&lt;script&gt;alert(1)") && hostile.contains("{{ 7*7 }}"));
    // Negative control.
    assert_eq!(faults(HOSTILE), ["https:", "<script", "<img", " src="]);
}

#[test]
fn sections_stand_where_their_data_is() {
    let folder = shared();
    let page = |files: &[&str], html: &str| {
        compare(folder, &[files, &["--html", html]].concat()).ok();
        fs::read_to_string(folder.join(html)).unwrap()
    };
    let sections = [
        "Speed",
        "Time of a token over depth",
        "Where the time goes",
        "Share of the memory",
        "Native against browser",
        "From token to token",
        "Machines",
        "Every row",
        "How this was measured",
    ];
    let all = page(&["h100.json", "software.jsonl", "swiftshader.json"], "sections.html");
    for section in sections {
        assert!(all.contains(&format!("<h2>{section}")), "no {section}");
    }
    assert!(
        all.contains("<h1>NVIDIA H100 80GB HBM3 is fastest: 6,380 tokens per second<"),
        "{}",
        &all[all.find("<h1>").unwrap()..][..200]
    );
    assert!(all.contains("repetitions differ by more than 10 %"));
    // Without such rows there is no such section.
    let mut load = samples::rows(&h100(), &fables());
    load.truncate(1);
    fs::write(folder.join("load.json"), json(load)).unwrap();
    let load = page(&["load.json"], "load.html");
    assert!(load.contains("No speed of tokens was measured"));
    for section in &sections[1..6] {
        assert!(!load.contains(&format!("<h2>{section}")), "{section}");
    }
}
