//! The invariants of ARCHITECTURE.md, most of them absences. Each rule reads a file and lists what breaks it;
//! each has a text that breaks it, which must be found.
#![forbid(unsafe_code)]

use nemoflash::ops::examples;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().expect("the workspace exists")
}

/// Every source file of the repository: (path from the root, text).
fn sources() -> Vec<(String, String)> {
    fn walk(dir: &Path, root: &Path, found: &mut Vec<(String, String)>) {
        for entry in std::fs::read_dir(dir).expect("a readable folder").flatten() {
            let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
            let skip = name.starts_with('.') || ["target", "node_modules", "dist", "pkg", "golden"].contains(&&*name);
            let kinds = ["rs", "wgsl", "toml", "js", "mjs", "ts", "css", "html", "md", "sh", "py"];
            let kind = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
            if path.is_dir() && !skip {
                walk(&path, root, found);
            } else if path.is_file() && !skip && (kinds.contains(&kind) || name == "test") {
                let short = path.strip_prefix(root).expect("inside").to_string_lossy().replace('\\', "/");
                found.push((short, std::fs::read_to_string(&path).unwrap_or_default()));
            }
        }
    }
    let mut found = vec![];
    walk(&root(), &root(), &mut found);
    found.sort();
    found
}

/// One rule on single files.
struct Rule {
    name: &'static str,
    applies: fn(&str) -> bool,
    /// What breaks the rule in this file.
    faults: fn(&str, &str) -> Vec<String>,
    /// A path and a text that break it.
    bad: (&'static str, &'static str),
}

/// The root of the core.
const CORE: &str = "core/src/lib.rs";

/// Whether a file may know wgpu.
fn knows_wgpu(path: &str) -> bool {
    path.starts_with("core/src/gpu/") || path == "core/src/caps.rs" || path == "tests/tests/tidy.rs"
}

const RULES: &[Rule] = &[
    Rule {
        name: "only gpu/ and caps.rs know wgpu",
        applies: |path| path.ends_with(".rs") && !knows_wgpu(path),
        faults: |_, text| lines(&code(text), |line| line.contains("wgpu::") || line.contains("use wgpu")),
        bad: ("core/src/op.rs", "fn f(d: &wgpu::Device) {}"),
    },
    Rule {
        name: "only gpu/ asks for the target",
        applies: |path| path.starts_with("core/src/") && !path.starts_with("core/src/gpu/"),
        faults: |_, text| lines(&code(text), |line| line.contains("cfg") && line.contains("target_")),
        bad: ("core/src/exec.rs", "#[cfg(not(target_arch = \"wasm32\"))]"),
    },
    Rule {
        name: "the core and the library of benches have no files, network, threads, clock, terminal or JavaScript",
        applies: |path| path.starts_with("core/src/") || path.starts_with("benches/src/"),
        faults: |_, text| {
            let names = ["fs", "net", "thread", "process", "env", "Instant", "SystemTime", "web_sys", "js_sys"];
            let mut found = words(&code(text), &names);
            found.extend(words(&code(text), &["println", "eprintln", "print", "eprint", "stdin", "stdout"]));
            found
        },
        bad: ("core/src/op.rs", "use std::time::{Duration, Instant};"),
    },
    Rule {
        name: "knowledge runs one way inside the core",
        applies: |path| path.starts_with("core/src/") && path != "core/src/lib.rs",
        faults: upward,
        bad: ("core/src/ops/rms_norm.rs", "use crate::{Caps, blocks::ffn};"),
    },
    Rule {
        name: "blocks do not know each other",
        applies: |path| path.starts_with("core/src/blocks/") && path != "core/src/blocks/mod.rs",
        faults: |path, text| {
            let me = path.rsplit('/').next().unwrap_or_default().trim_end_matches(".rs");
            let others = ["attention", "mamba2", "deltanet", "ffn"].into_iter().filter(|other| *other != me);
            let paths = others.flat_map(|other| [format!("super::{other}"), format!("blocks::{other}")]);
            paths.filter(|path| code(text).contains(path)).collect()
        },
        bad: ("core/src/blocks/ffn.rs", "use super::mamba2::Mamba2;"),
    },
    Rule {
        name: "modules of text/ and config/ do not know what their parent holds",
        applies: |path| path.starts_with("core/src/text/") || path.starts_with("core/src/config/"),
        faults: |_, text| parents_items(&code(text)),
        bad: ("core/src/text/answer.rs", "use super::{wrong::template, Tokenizer};"),
    },
    Rule {
        name: "a kernel's file has one entry point, named like the file; a shared file has none",
        applies: |path| path.ends_with(".wgsl"),
        faults: |path, text| {
            let entries: Vec<&str> = code_ref(text).filter(|line| line.contains("@compute")).collect();
            let name = path.rsplit('/').next().unwrap_or_default().trim_end_matches(".wgsl");
            let named = code_ref(text).any(|line| line.contains(&format!("fn {name}(")));
            match (path.contains("/lib/"), entries.len(), named) {
                (true, 0, _) | (false, 1, true) => vec![],
                (_, count, _) => vec![format!("{count} entry points, one named {name}: {named}")],
            }
        },
        bad: ("shaders/softmax.wgsl", "@compute @workgroup_size(1)\nfn main() {}"),
    },
    Rule {
        name: "no preprocessor in shaders",
        applies: |path| path.ends_with(".wgsl"),
        faults: |_, text| lines(text, |line| line.trim_start().starts_with('#')),
        bad: ("shaders/lib/x.wgsl", "#ifdef F16\n#endif"),
    },
    Rule {
        // Chromium's SwiftShader zeroes one without a value once, not at every turn of the loop it stands in.
        name: "a shader's variable has a first value",
        applies: |path| path.ends_with(".wgsl"),
        faults: |_, text| {
            lines(text, |line| {
                line.trim_start().starts_with("var ") && !line.split("//").next().is_some_and(|code| code.contains("="))
            })
        },
        bad: ("shaders/x.wgsl", "        var sums: array<f32, 4>; // of a row"),
    },
    Rule {
        name: "every crate forbids unsafe code",
        applies: |path| {
            let roots = ["src/lib.rs", "src/main.rs", "/tests/main.rs"];
            path != CORE && roots.iter().any(|root| path.ends_with(root))
        },
        faults: |_, text| absent(text, "#![forbid(unsafe_code)]"),
        bad: ("wasm/src/lib.rs", "//! A crate.\n#![allow(unsafe_code)]"),
    },
    Rule {
        name: "the core denies unsafe code",
        applies: |path| path == CORE,
        faults: |_, text| absent(text, "#![deny(unsafe_code)]"),
        bad: (CORE, "//! A crate."),
    },
    Rule {
        name: "the core has no unsafe code, but for the word that wgpu wants for what is experimental",
        applies: |path| path.starts_with("core/src/") && path != CORE,
        faults: |path, text| match path {
            "core/src/gpu/experimental.rs" => {
                let unsafes = words(&code(text), &["unsafe"]);
                if unsafes.len() == 1 && unsafes[0].contains("ExperimentalFeatures::enabled()") {
                    vec![]
                } else {
                    unsafes
                }
            }
            _ => words(&code(text), &["unsafe", "unsafe_code"]),
        },
        bad: ("core/src/gpu/submit.rs", "#[allow(unsafe_code)]\nfn f() { unsafe { g() } }"),
    },
    Rule {
        name: "a suite is a module of its folder's main file: what is not listed there does not run",
        applies: |path| path.split('/').nth(1) == Some("tests") && path.ends_with(".rs") && !path.ends_with("/main.rs"),
        faults: |path, _| homeless(path),
        bad: ("core/tests/text/homeless.rs", ""),
    },
    Rule {
        name: "files are short",
        applies: |path| [".rs", ".wgsl", ".ts", ".js", ".mjs", ".css", ".py", "test"].iter().any(|e| path.ends_with(e)),
        faults: |_, text| match text.lines().count() {
            count if count > 500 => vec![format!("{count} lines, more than 500")],
            _ => vec![],
        },
        bad: ("core/src/big.rs", concat!(include_str!("tidy.rs"), include_str!("tidy.rs"))),
    },
    Rule {
        name: "nothing is left for later",
        applies: |path| !path.ends_with(".md") && path != "tests/tests/tidy.rs",
        faults: |_, text| words(text, &["TODO", "FIXME", "XXX", "HACK", "dbg", "todo", "unimplemented"]),
        bad: ("core/src/op.rs", "fn f() { todo!() }"),
    },
];

/// Types, constants and globs that are named as `super::X`, alone or in a list: a module's name begins with a small letter.
fn parents_items(code: &str) -> Vec<String> {
    let capital = |name: &&str| name.starts_with(|c: char| c.is_uppercase() || c == '*');
    let mut found = vec![];
    for rest in code.split("super::").skip(1) {
        let Some(list) = rest.strip_prefix('{') else {
            found.extend([rest].iter().filter(|name| capital(name)).map(|name| format!("super::{name:.20}")));
            continue;
        };
        let (mut depth, mut names) = (0, vec![String::new()]);
        for c in list.chars() {
            match c {
                '}' if depth == 0 => break,
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 0 => names.push(String::new()),
                _ => names.last_mut().expect("one").push(c),
            }
        }
        found.extend(names.iter().map(|name| name.trim()).filter(capital).map(|name| format!("super::{name}")));
    }
    found
}

/// The text without comments and without the unit tests at its end.
fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    code_ref(text).collect::<Vec<_>>().join("\n")
}

fn code_ref(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(|line| line.split("//").next().unwrap_or_default())
}

/// The lines that `found` accepts.
fn lines(text: &str, found: fn(&str) -> bool) -> Vec<String> {
    text.lines().zip(1..).filter(|(line, _)| found(line)).map(|(line, at)| format!("{at}: {}", line.trim())).collect()
}

/// The lines that have one of these as a whole word.
fn words(text: &str, names: &[&str]) -> Vec<String> {
    let split = |c: char| !c.is_alphanumeric() && c != '_';
    let hit = |line: &str| line.split(split).any(|word| names.contains(&word));
    text.lines().zip(1..).filter(|(line, _)| hit(line)).map(|(line, at)| format!("{at}: {}", line.trim())).collect()
}

fn absent(text: &str, wanted: &str) -> Vec<String> {
    if text.lines().any(|line| line == wanted) { vec![] } else { vec![format!("no `{wanted}`")] }
}

/// Says so if the main file of a suite's folder has no `mod` for it.
fn homeless(path: &str) -> Vec<String> {
    let module = path.trim_end_matches(".rs").trim_end_matches("/mod");
    let (folder, name) = module.rsplit_once('/').expect("a suite is in a folder");
    let read = |file| std::fs::read_to_string(root().join(folder).join(file)).unwrap_or_default();
    let (line, parents) = (format!("mod {name};"), read("main.rs") + &read("mod.rs"));
    absent(&parents.replace("pub mod", "mod"), &line)
}

/// The layers of the core, lowest first: a module knows those of its own layer and of lower ones.
const LAYERS: [&[&str]; 11] = [
    &["error", "buf", "batch", "json", "names", "spec"],
    &["caps", "kernel", "format", "checkpoint", "config", "sampling", "defaults", "text"],
    &["op"],
    &["ops"],
    &["gpu", "cpu", "dry", "plan", "exec"],
    &["check"],
    &["place", "matrix", "table", "inventory", "tied", "scratch", "blocks", "rotary"],
    &["model", "arena"],
    &["loader", "loaded", "synthetic"],
    &["engine"],
    &["explain", "chat"],
];

/// References of a core module to modules of higher layers.
fn upward(path: &str, text: &str) -> Vec<String> {
    let layer = |module: &str| LAYERS.iter().position(|layer| layer.contains(&module));
    let module = path.trim_start_matches("core/src/").split(['/', '.']).next().unwrap_or_default();
    let Some(own) = layer(module) else { return vec![format!("{module} is in no layer")] };
    let split = |c: char| !c.is_alphanumeric() && c != '_';
    let code = code(text);
    // `crate::a::B` names a; `crate::{a, b::{c}, D}` names a, b and D. Types of the root belong to a module.
    let names = code.split("crate::").skip(1).flat_map(|rest| match rest.strip_prefix('{') {
        None => vec![rest.split(split).next().unwrap_or_default()],
        Some(list) => list.split(';').next().unwrap_or_default().split(split).collect(),
    });
    let root = root_types();
    let home = |name: &str| root.get(name).cloned().unwrap_or_else(|| name.to_string());
    let higher: BTreeSet<String> =
        names.filter(|name| layer(&home(name)).is_some_and(|other| other > own)).map(String::from).collect();
    higher.into_iter().map(|name| format!("{module} knows {name}")).collect()
}

/// Which module each type of the crate's root comes from.
fn root_types() -> BTreeMap<String, String> {
    let text = std::fs::read_to_string(root().join("core/src/lib.rs")).unwrap_or_default();
    let mut types = BTreeMap::new();
    for line in text.split("pub use ").skip(1) {
        let line = line.split(';').next().unwrap_or_default();
        let (module, list) = line.split_once("::").unwrap_or((line, ""));
        for name in list.split([',', '{', '}']).map(str::trim).filter(|name| !name.is_empty()) {
            types.insert(name.to_string(), module.to_string());
        }
    }
    types
}

#[test]
fn every_rule_holds() {
    let mut faults = vec![];
    for (path, text) in sources() {
        for rule in RULES.iter().filter(|rule| (rule.applies)(&path)) {
            faults.extend((rule.faults)(&path, &text).into_iter().map(|f| format!("{path}: {}: {f}", rule.name)));
        }
        if path.ends_with(".rs") && text.lines().count() > 400 {
            println!("{path} has {} lines; 400 are plenty", text.lines().count());
        }
    }
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

/// Negative control.
#[test]
fn every_rule_finds_its_fault() {
    let paths: Vec<String> = sources().into_iter().map(|(path, _)| path).collect();
    for rule in RULES {
        let (path, text) = rule.bad;
        assert!((rule.applies)(path), "{} does not look at {path}", rule.name);
        assert!(!(rule.faults)(path, text).is_empty(), "{} does not find its fault", rule.name);
        let somewhere = paths.iter().any(|path| (rule.applies)(path));
        assert!(somewhere || rule.bad.0.contains("blocks"), "{} looks at no file", rule.name);
    }
    assert_eq!(code("a // b\n#[cfg(test)]\nmod tests { c }").trim(), "a");
    assert!(upward("core/src/ops/x.rs", "use crate::Exec;").len() == 1, "types of the root have a home");
    assert!(upward("core/src/engine.rs", "use crate::ops::RmsNorm;").is_empty());
    assert!(upward("core/src/new.rs", "").len() == 1, "every module has a layer");
}

/// Which crates of the workspace each one may know.
const CRATES: [(&str, &[&str]); 8] = [
    ("nemoflash-fables", &[]),
    ("nemoflash-shaders", &[]),
    ("nemoflash", &["nemoflash-shaders", "nemoflash-fables"]),
    ("nemoflash-cli", &["nemoflash", "nemoflash-bench", "nemoflash-fables"]),
    ("nemoflash-wasm", &["nemoflash", "nemoflash-bench"]),
    ("nemoflash-tests", &["nemoflash", "nemoflash-shaders", "nemoflash-cli", "nemoflash-bench"]),
    ("nemoflash-bench", &["nemoflash", "nemoflash-fables"]),
    ("nemoflash-fuzz", &["nemoflash-cli", "nemoflash-tests"]),
];

/// Crates of the workspace that a Cargo.toml names and may not.
fn forbidden_crates(toml: &str) -> Vec<String> {
    let name = toml.lines().find_map(|line| line.strip_prefix("name = ")).unwrap_or_default().trim_matches('"');
    let Some((_, allowed)) = CRATES.iter().find(|(known, _)| *known == name) else {
        return vec![format!("{name} is not in the list of crates")];
    };
    let named = toml.lines().filter_map(|line| line.split(['.', ' ', '=']).next()).filter(|n| n.starts_with("nemo"));
    named.filter(|other| !allowed.contains(other)).map(|other| format!("{name} knows {other}")).collect()
}

#[test]
fn crates_know_each_other_one_way() {
    let mut faults = vec![];
    for (path, text) in sources().iter().filter(|(path, _)| path.ends_with("/Cargo.toml")) {
        faults.extend(forbidden_crates(text).into_iter().map(|fault| format!("{path}: {fault}")));
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    let bad = "[package]\nname = \"nemoflash\"\n[dependencies]\nnemoflash-cli.workspace = true";
    assert_eq!(forbidden_crates(bad), ["nemoflash knows nemoflash-cli"]);
    assert_eq!(forbidden_crates("name = \"new\"").len(), 1);
}

/// Packages of a crate for a target, without those for building and testing.
fn tree(package: &str, target: &str) -> String {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let arguments = ["tree", "--locked", "--prefix", "none", "-e", "normal", "-p", package, "--target", target];
    let output = Command::new(cargo).args(arguments).current_dir(root()).output().expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn the_page_carries_no_shader_compiler() {
    let has = |tree: &str, name: &str| tree.lines().any(|line| line.split(' ').next() == Some(name));
    let page = tree("nemoflash-wasm", "wasm32-unknown-unknown");
    for name in ["naga", "wgpu-core", "wgpu-hal", "onig", "onig_sys"] {
        assert!(!has(&page, name), "{name} is in the browser's tree");
    }
    // Negative control: a native build has one.
    assert!(has(&page, "wgpu") && has(&tree("nemoflash", "x86_64-unknown-linux-gnu"), "naga"));
}

/// Files of the shaders crate that are on disk and not in its list, or the other way round, or differ.
fn unlisted(disk: &BTreeMap<String, String>, list: &[(&str, &str)]) -> Vec<String> {
    let list: BTreeMap<String, String> = list.iter().map(|(name, text)| (name.to_string(), text.to_string())).collect();
    let names: BTreeSet<&String> = disk.keys().chain(list.keys()).collect();
    names.into_iter().filter(|name| disk.get(*name) != list.get(*name)).cloned().collect()
}

#[test]
fn every_shader_file_is_listed() {
    let inside = |path: &str| path.strip_prefix("shaders/").filter(|p| p.ends_with(".wgsl")).map(String::from);
    let mut disk: BTreeMap<String, String> =
        sources().into_iter().filter_map(|(path, text)| Some((inside(&path)?, text))).collect();
    let none: Vec<String> = vec![];
    assert_eq!(unlisted(&disk, nemoflash_shaders::FILES), none);
    disk.insert("more.wgsl".into(), String::new());
    assert_eq!(unlisted(&disk, nemoflash_shaders::FILES), ["more.wgsl"]);
}

/// Operator files none of whose kernels begins with the file's name, and kernels that no operator file names.
fn misnamed(files: &[(String, String)], kernels: &BTreeSet<&str>) -> Vec<String> {
    let mut faults = vec![];
    for (file, _) in files.iter().filter(|(_, text)| text.contains("Op for ")) {
        if !kernels.iter().any(|kernel| kernel.starts_with(file.as_str())) {
            faults.push(format!("no kernel is named like ops/{file}.rs"));
        }
    }
    for kernel in kernels {
        let quoted = format!("\"{kernel}\"");
        if !files.iter().any(|(_, text)| text.contains("Op for ") && code(text).contains(&quoted)) {
            faults.push(format!("no operator file names {kernel}"));
        }
    }
    faults
}

#[test]
fn operators_are_named_like_their_kernels() {
    let stem = |path: &str| path.strip_prefix("core/src/ops/")?.strip_suffix(".rs").map(String::from);
    let mut files: Vec<_> = sources().into_iter().filter_map(|(path, text)| Some((stem(&path)?, text))).collect();
    files.retain(|(file, _)| file != "mod");
    let cases = examples();
    let mut kernels: BTreeSet<&str> = cases.iter().map(|case| case.op.kernel().name).collect();
    let none: Vec<String> = vec![];
    assert_eq!(misnamed(&files, &kernels), none);
    kernels.insert("homeless");
    files.push(("strange".into(), "impl Op for Strange".into()));
    assert_eq!(misnamed(&files, &kernels).len(), 2);
}

#[test]
fn documents_exist() {
    for file in ["README.md", "ARCHITECTURE.md", "CHANGELOG.md", "models/fables/README.md"] {
        let text = std::fs::read_to_string(root().join(file)).unwrap_or_default();
        assert!(text.lines().count() > 3, "{file} is missing or empty");
    }
}
