//! What is published is whole: every package has its licence, its README and what its sources include, and the npm package
//! says the same version as the crates. `cargo package` itself is a step of ./test.
#![forbid(unsafe_code)]

use serde_json::Value;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().expect("the workspace exists")
}

fn cargo(arguments: &[&str]) -> String {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let output = Command::new(cargo).args(arguments).arg("--offline").current_dir(root()).output().expect("cargo runs");
    assert!(output.status.success(), "cargo {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// The crates that are published: cargo's metadata of each.
fn published() -> Vec<Value> {
    let all: Value =
        serde_json::from_str(&cargo(&["metadata", "--no-deps", "--format-version", "1"])).expect("metadata is JSON");
    let packages = all["packages"].as_array().expect("packages").clone();
    packages.into_iter().filter(|package| package["publish"].is_null()).collect()
}

fn text<'a>(package: &'a Value, key: &str) -> &'a str {
    package[key].as_str().unwrap_or_default()
}

/// What a registry or a reader would miss.
fn missing(package: &Value, files: &BTreeSet<String>) -> Vec<String> {
    let mut missing: Vec<String> = ["description", "license", "repository", "readme", "rust_version"]
        .into_iter()
        .filter(|key| text(package, key).is_empty())
        .map(|key| format!("no {key}"))
        .collect();
    for (key, most) in [("keywords", 5), ("categories", 5)] {
        let count = package[key].as_array().map_or(0, Vec::len);
        if count == 0 || count > most {
            missing.push(format!("{count} {key}"));
        }
    }
    let wanted = [text(package, "readme"), "LICENSE-MIT", "LICENSE-APACHE"];
    missing.extend(wanted.iter().filter(|name| !files.contains(**name)).map(|name| format!("{name} is not in it")));
    missing
}

/// Files that a source includes and the package does not have, and paths that lead out of the package. Unit tests at the end
/// of a file are left out: they are not compiled where the crate is a dependency.
fn outside(source: &str, text: &str, files: &BTreeSet<String>) -> Vec<String> {
    let code = text.split("#[cfg(test)]").next().unwrap_or_default();
    let folder = Path::new(source).parent().unwrap_or(Path::new(""));
    let mut faults = vec![];
    for include in ["include_str!(\"", "include_bytes!(\""] {
        for rest in code.split(include).skip(1) {
            let name = rest.split('"').next().unwrap_or_default();
            let mut path = vec![];
            for part in folder.join(name).to_string_lossy().split('/') {
                match (part, path.last()) {
                    ("..", Some(last)) if last != ".." => drop(path.pop()),
                    _ => path.push(part.to_owned()),
                }
            }
            let path = path.join("/");
            if !files.contains(&path) {
                faults.push(format!("{source} includes {path}"));
            }
        }
    }
    if code.contains("CARGO_MANIFEST_DIR\"), \"/..") {
        faults.push(format!("{source} looks outside its package"));
    }
    faults
}

#[test]
fn packages_are_whole() {
    let packages = published();
    let names: BTreeSet<&str> = packages.iter().map(|package| text(package, "name")).collect();
    for name in ["nemoflash-fables", "nemoflash-shaders", "nemoflash", "nemoflash-bench", "nemoflash-cli"] {
        assert!(names.contains(name), "{name} is not among {names:?}");
    }
    let mut faults = vec![];
    for package in &packages {
        let name = text(package, "name");
        let list = cargo(&["package", "--list", "--allow-dirty", "-p", name]);
        let files: BTreeSet<String> = list.lines().map(|line| line.replace('\\', "/")).collect();
        faults.extend(missing(package, &files).into_iter().map(|fault| format!("{name}: {fault}")));
        let folder = Path::new(text(package, "manifest_path")).parent().expect("a folder");
        for licence in ["LICENSE-MIT", "LICENSE-APACHE"] {
            let read = |path: PathBuf| std::fs::read_to_string(path).unwrap_or_default();
            if read(folder.join(licence)) != read(root().join(licence)) {
                faults.push(format!("{name}: its {licence} is not that of the repository"));
            }
        }
        for file in files.iter().filter(|file| file.ends_with(".rs")) {
            let code = std::fs::read_to_string(folder.join(file)).unwrap_or_default();
            faults.extend(outside(file, &code, &files).into_iter().map(|fault| format!("{name}: {fault}")));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// Negative control.
#[test]
fn what_is_missing_is_found() {
    let files: BTreeSet<String> = ["src/lib.rs", "a.txt", "src/b.txt"].map(String::from).into();
    assert_eq!(missing(&Value::Null, &files).len(), 10);
    let include = |name: &str| format!("const A: &str = {}(\"{name}\");", "include_str!");
    for (name, found) in [("../a.txt", 0), ("b.txt", 0), ("../../a.txt", 1), ("c.txt", 1), ("../../../b.txt", 1)] {
        assert_eq!(outside("src/lib.rs", &include(name), &files).len(), found, "{name}");
    }
    let path = format!("concat!(env!(\"CARGO_MANIFEST_DIR{}", "\"), \"/../models\")");
    assert_eq!(outside("src/lib.rs", &path, &files).len(), 1);
}

#[test]
fn versions_are_one() {
    let packages = published();
    let version = text(&packages[0], "version");
    assert!(packages.iter().all(|package| text(package, "version") == version));
    let read = |name: &str| -> Value {
        let text = std::fs::read_to_string(root().join("wasm").join(name)).expect("the npm package");
        serde_json::from_str(&text).expect("JSON")
    };
    let npm = read("package.json");
    assert_eq!(text(&npm, "version"), version, "wasm/package.json: `npm run build` writes it");
    assert_eq!(text(&read("package-lock.json"), "version"), version, "wasm/package-lock.json");
    assert_eq!(text(&npm, "license"), text(&packages[0], "license"));
    assert_eq!(npm["repository"]["url"], format!("git+{}.git", text(&packages[0], "repository")));
    let files = npm["files"].as_array().expect("a list of files");
    assert!(
        ["dist", "README.md", "LICENSE-MIT", "LICENSE-APACHE"].iter().all(|name| files.contains(&Value::from(*name)))
    );
}
