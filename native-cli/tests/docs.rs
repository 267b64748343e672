//! The documents of the repository: every command that they show is one that the binary understands, and every link
//! leads to a file.
#![forbid(unsafe_code)]

use crate::common::{finish, nemoflash};
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// README.md and its like at the root, and docs/: path and text.
fn documents() -> Vec<(PathBuf, String)> {
    let folders = [root(), root().join("docs"), root().join("benches"), root().join("fuzz")];
    let files = folders.iter().flat_map(|folder| fs::read_dir(folder).expect("a folder").flatten());
    let paths = files.map(|file| file.path()).filter(|path| path.extension().is_some_and(|end| end == "md"));
    paths.map(|path| (path.clone(), fs::read_to_string(&path).expect("UTF-8"))).collect()
}

/// The words of a shell's line up to a comment, a pipe or a redirection.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quoted, mut begun) = (vec![], String::new(), false, false);
    for c in line.chars() {
        match c {
            '"' => (quoted, begun) = (!quoted, true),
            ' ' if !quoted => {
                if begun {
                    words.push(std::mem::take(&mut word));
                }
                begun = false;
            }
            '#' | '|' | '>' if !quoted && !begun => break,
            _ => {
                word.push(c);
                begun = true;
            }
        }
    }
    if begun {
        words.push(word);
    }
    words
}

/// The arguments of every `nemoflash ...` in the shell blocks of a document.
fn commands(text: &str) -> Vec<Vec<String>> {
    let mut commands = vec![];
    let mut shell = false;
    for line in text.lines() {
        if line.starts_with("```") {
            shell = ["```sh", "```console"].contains(&line);
            continue;
        }
        let line = line.trim_start_matches("$ ").trim_start_matches("target/release/");
        let line = line.split_once("| nemoflash").map_or(line.to_owned(), |(_, rest)| format!("nemoflash{rest}"));
        if shell && line.starts_with("nemoflash ") {
            commands.push(words(&line).split_off(1));
        }
    }
    commands
}

/// Whether the binary understands these arguments. `--help` behind them lets it read all of them and run nothing.
fn understood(arguments: &[String]) -> bool {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).chain(["--help"]).collect();
    finish(nemoflash(&arguments).spawn().expect("the binary runs")).code == Some(0)
}

#[test]
fn commands_are_understood() {
    let mut seen = 0;
    for (path, text) in documents() {
        for arguments in commands(&text) {
            assert!(understood(&arguments), "{}: nemoflash {}", path.display(), arguments.join(" "));
            seen += 1;
        }
    }
    assert!(seen > 30, "only {seen} commands were found");
    // Negative controls.
    let wrong = commands("```sh\necho \"a\" | nemoflash --no-such \"b # c\" > out # d\nother\n```\nnemoflash text");
    assert_eq!(wrong, [["--no-such", "b # c"]]);
    assert!(!understood(&wrong[0]));
    assert!(!understood(&["chat".into(), "--weights".into(), "q5".into()]));
}

/// The targets of the links `[text](target)` of a document, without those into the network.
fn links(text: &str) -> Vec<&str> {
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    targets.filter(|target| !target.contains("://")).collect()
}

/// The anchors that a reader of Markdown makes of a document's headings.
fn anchors(text: &str) -> Vec<String> {
    let headings = text.lines().filter(|line| line.starts_with('#'));
    let kept = |c: &char| c.is_alphanumeric() || [' ', '-', '_'].contains(c);
    headings
        .map(|line| {
            line.trim_start_matches('#')
                .trim()
                .to_lowercase()
                .chars()
                .filter(kept)
                .collect::<String>()
                .replace(' ', "-")
        })
        .collect()
}

/// Why a link of a document at `path` leads nowhere.
fn broken(path: &Path, link: &str) -> Option<String> {
    let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
    let target = if file.is_empty() { path.to_owned() } else { path.parent()?.join(file) };
    if anchor.is_empty() {
        return (!target.exists()).then(|| format!("{link}: no such file"));
    }
    let text = fs::read_to_string(&target).unwrap_or_default();
    (!anchors(&text).iter().any(|one| one == anchor)).then(|| format!("{link}: no such heading"))
}

#[test]
fn links_lead_somewhere() {
    let mut seen = 0;
    for (path, text) in documents() {
        for link in links(&text) {
            assert_eq!(broken(&path, link), None, "{}", path.display());
            seen += 1;
        }
    }
    assert!(seen > 20, "only {seen} links were found");
    // Negative controls.
    let readme = root().join("README.md");
    assert!(broken(&readme, "docs/none.md").is_some());
    assert!(broken(&readme, "docs/web.md#none").is_some());
    assert_eq!(links("[a](b.md) [c](https://example.org)"), ["b.md"]);
    assert_eq!(anchors("# A `b` --c"), ["a-b---c"]);
}
