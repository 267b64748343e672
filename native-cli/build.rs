//! Tells the program the commit that it is built from (`NEMOFLASH_COMMIT`): what the variable says, or what git says.
//! Without either, it does not know.

use std::process::Command;

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !text.is_empty()).then_some(text)
}

fn main() {
    println!("cargo::rerun-if-env-changed=NEMOFLASH_COMMIT");
    // What is compiled in: a change of it makes `-dirty`, or takes it away.
    // The published package has its own folder alone.
    let all = ["src", "Cargo.toml", "../core", "../shaders", "../models", "../Cargo.toml", "../Cargo.lock"];
    for source in all.iter().filter(|source| std::path::Path::new(source).exists()) {
        println!("cargo::rerun-if-changed={source}");
    }
    // A copy of the sources in the repository of something else has that one's commit, which says nothing.
    let own = git(&["rev-parse", "--show-prefix"]).is_some_and(|prefix| prefix == "native-cli/");
    if std::env::var_os("NEMOFLASH_COMMIT").is_some() || !own {
        return;
    }
    // Written by every commit and checkout.
    if let Some(log) = git(&["rev-parse", "--git-path", "logs/HEAD"]) {
        println!("cargo::rerun-if-changed={log}");
    }
    if let Some(commit) = git(&["describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]) {
        println!("cargo::rustc-env=NEMOFLASH_COMMIT={commit}");
    }
}
