//! Files that commands write: an old one stays until the new one is whole, through a kill and a full disk, and none is an input.
#![forbid(unsafe_code)]

use crate::common::{cpu, fables, finish, nemoflash, on_cpu};
use nemoflash_bench::report::Row;
use std::fs;
use std::path::Path;
use std::time::Duration;

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = entries.collect();
    names.sort();
    names
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn a_killed_run_leaves_the_old_file_and_its_rows() {
    let folder = tempfile::tempdir().unwrap();
    let [file, part] = ["rows.json", "rows.json.part"].map(|name| folder.path().join(name));
    fs::write(&file, "old").unwrap();
    // The second test takes longer than anybody waits.
    let line =
        ["bench", "--device=cpu", "-p0", "-n4,4000", "-r99", "--profile=0", "--skip=gate,load", "-ojson", "--file"];
    let mut child = nemoflash(&[&line[..], &[text(&file)]].concat()).spawn().unwrap();
    while !fs::read_to_string(&part).is_ok_and(|text| text.ends_with('\n')) {
        assert!(child.try_wait().unwrap().is_none(), "{:?}", finish(child));
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(names(folder.path()), ["rows.json", "rows.json.part"]);
    assert_eq!(fs::read_to_string(&file).unwrap(), "old");
    let kept = fs::read_to_string(&part).unwrap();
    let row: Row = serde_json::from_str(&kept).unwrap();
    assert_eq!(row.test.name, "tg4");
    // The command that reads rows reads these.
    assert!(cpu(&["compare", text(&part)]).ok().contains("tg4"));
    // The next run keeps them, and replaces the old file.
    let again = ["bench", "-p0", "-n4", "-r1", "--profile=0", "--skip=gate,load", "-ojsonl", "--file", text(&file)];
    cpu(&again).ok();
    assert_eq!(names(folder.path()), ["rows.json", "rows.json.part"]);
    assert_eq!(fs::read_to_string(&part).unwrap(), kept);
    let row: Row = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
    assert_eq!(row.test.name, "tg4");
}

/// A limit on the length of files stands for a full disk: writing then fails in the same place, on any machine.
#[test]
#[cfg(unix)]
fn a_full_disk_leaves_the_old_file_and_whole_rows() {
    let folder = tempfile::tempdir().unwrap();
    let run = |blocks: &str, arguments: &[&str]| {
        let script = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$@\"");
        let mut command = std::process::Command::new("sh");
        command.args(["-c", &script, "sh", env!("CARGO_BIN_EXE_nemoflash")]).args(on_cpu(arguments)).args(arguments);
        command.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::piped());
        finish(command.stderr(std::process::Stdio::piped()).spawn().unwrap())
    };
    let [logits, rows, page] = ["logits", "rows", "page.html"].map(|name| folder.path().join(name));
    for path in [&logits, &rows, &page] {
        fs::write(path, "old").unwrap();
    }
    let old = |path: &Path| assert_eq!(fs::read_to_string(path).unwrap(), "old", "{}", path.display());
    let write = ["logits", "--ids=1,2,3,4", "--out", text(&logits)];
    run("8", &write).refused(1, &["cannot write", "logits", "the disk"]);
    old(&logits);
    // Rows are written until the disk is full. Each that is there is whole.
    let lengths = "1,2,3,4,5,6,7,8,9,10,11,12";
    let bench =
        ["bench", "-p0", "-n", lengths, "-r1", "--profile=0", "--skip=gate,load", "-ojsonl", "--file", text(&rows)];
    let full = run("8", &bench);
    assert_eq!(full.code, Some(1), "{full:?}");
    assert!(full.err.contains("cannot write") && full.err.contains("[what was measured is in "), "{full:?}");
    old(&rows);
    let kept = fs::read_to_string(folder.path().join("rows.part")).unwrap();
    let kept: Vec<Row> = kept.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!((1..12).contains(&kept.len()), "{} rows", kept.len());
    run("8", &["compare", text(&folder.path().join("rows.part")), "--html", text(&page)]).refused(1, &["cannot write"]);
    old(&page);
    // Nothing else is left behind.
    assert_eq!(names(folder.path()), ["logits", "page.html", "rows", "rows.part"]);
    // Negative control: with room, the same commands write.
    run("unlimited", &write).ok();
    run("unlimited", &bench).ok();
    assert_eq!(fs::read_to_string(&rows).unwrap().lines().count(), 12);
    assert!(fs::metadata(&logits).unwrap().len() > 4096);
}

#[test]
fn an_output_is_no_input() {
    let (model, folder) = (fables(), tempfile::tempdir().unwrap());
    let weights = model.path().join("model.safetensors");
    let len = fs::metadata(&weights).unwrap().len();
    let refused = |line: &[&str]| cpu(line).refused(2, &["cannot be written: this run also uses it"]);
    refused(&["logits", "--ids=1", "--model", text(model.path()), "--out", text(&weights)]);
    refused(&["bench", "--model", text(model.path()), "--file", text(&model.path().join("config.json"))]);
    assert_eq!(fs::metadata(&weights).unwrap().len(), len);
    let [page, points] = ["page.html", "points.csv"].map(|name| folder.path().join(name));
    refused(&["bench", "--file", text(&page), "--html", text(&page)]);
    fs::write(&points, "depth,width,loss\n6,1024,3.5\n").unwrap();
    refused(&["profile", "depth-width", "--points", text(&points), "--file", text(&points)]);
    fs::write(&page, "{}").unwrap();
    refused(&["compare", text(&page), "--html", text(&page)]);
    // Nothing was written.
    assert_eq!(
        (names(folder.path()), fs::read_to_string(&page).unwrap()),
        (vec!["page.html".into(), "points.csv".into()], "{}".into())
    );
}

/// What `--browser` needs is asked for before anything is measured.
#[test]
fn a_missing_page_or_browser_is_told_first() {
    let folder = tempfile::tempdir().unwrap();
    let page = text(folder.path());
    let bench = ["bench", "-p0", "-n4", "-r1", "--skip=gate,load", "--browser=/no/such/browser", "--page", page];
    cpu(&bench).refused(1, &["holds no built web demo"]);
    fs::write(folder.path().join("index.html"), "").unwrap();
    cpu(&bench).refused(1, &["cannot start /no/such/browser"]);
    cpu(&[&bench[..], &["--arch", "qwen3-0.6b"]].concat()).refused(1, &["the web demo has no random weights"]);
}
