//! Completions and manual pages: every shell and every command has its own.
#![forbid(unsafe_code)]

use crate::common::{self, finish, nemoflash};
use std::collections::BTreeSet;

fn run(arguments: &[&str]) -> common::Run {
    finish(nemoflash(arguments).spawn().expect("the binary runs"))
}

/// The commands that `--help` names.
fn commands() -> BTreeSet<String> {
    let help = run(&["--help"]).ok();
    let (_, list) = help.split_once("Commands:\n").expect("a list of commands");
    let lines = list.lines().take_while(|line| !line.is_empty());
    // A line that goes on with the text of the one in front begins with more spaces.
    let names = lines.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    names.filter_map(|line| line.split_whitespace().next()).map(String::from).collect()
}

#[test]
fn every_shell_has_completions_of_every_command() {
    let commands = commands();
    assert!(commands.len() > 10 && commands.contains("completions"), "{commands:?}");
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = run(&["completions", shell]).ok();
        for name in &commands {
            assert!(script.contains(name.as_str()), "{shell}: no {name}");
        }
        assert!(script.contains("max-tokens"), "{shell}");
    }
    run(&["completions", "cmd"]).refused(2, &["cmd", "bash"]);
    run(&["completions"]).refused(2, &["SHELL"]);
}

#[cfg(unix)]
#[test]
fn bash_reads_its_completions() {
    let script = run(&["completions", "bash"]).ok();
    let check = |text: &str| {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), text).expect("written");
        std::process::Command::new("bash").arg("-n").arg(file.path()).output()
    };
    match check(&script) {
        Ok(output) => assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr)),
        Err(error) => return println!("not run: bash: {error}"),
    }
    assert!(!check("case x in").expect("bash runs").status.success(), "bash finds no fault");
}

#[test]
fn every_command_has_a_manual_page() {
    let page = run(&["man"]).ok();
    assert!(page.contains(".TH nemoflash 1"), "{}", &page[..200]);
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path().join("share/man1");
    assert_eq!(run(&["man", dir.to_str().expect("a path")]).ok(), "");
    for name in commands() {
        assert!(page.contains(&name), "{name} is not in the page of the program");
        if name != "help" {
            let own = std::fs::read_to_string(dir.join(format!("nemoflash-{name}.1"))).expect("a page");
            assert!(own.contains(".TH") && own.contains("SYNOPSIS"), "{name}");
        }
    }
    let file = folder.path().join("file");
    std::fs::write(&file, "").expect("written");
    run(&["man", file.to_str().expect("a path")]).refused(1, &["manual pages", "file"]);
}
