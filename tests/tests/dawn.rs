//! Every kernel's text compiled by Dawn, the WebGPU implementation of Chromium: what naga accepts, a browser
//! may refuse. Needs Node and `npm ci --prefix tests/dawn`.
#![forbid(unsafe_code)]

use nemoflash_tests::{loud, shaders};
use std::path::Path;
use std::process::Command;

/// Compiles (name, device, text) and gives Dawn's report, or why it could not be asked.
fn dawn(file: &str, list: &[(&str, &str, String)]) -> Result<(bool, String), String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("dawn");
    if !folder.join("node_modules/webgpu").exists() {
        return Err("`npm ci --prefix tests/dawn` has not been run".into());
    }
    let entry = |(name, device, text): &(&str, &str, String)| serde_json::json!({ "name": name, "device": device, "text": text });
    let json = serde_json::Value::from(list.iter().map(entry).collect::<Vec<_>>()).to_string();
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(file);
    std::fs::write(&path, json).map_err(|e| format!("{}: {e}", path.display()))?;
    let output = Command::new("node").arg(folder.join("compile.mjs")).arg(&path).output();
    let output = output.map_err(|e| format!("node: {e}"))?;
    let report = String::from_utf8_lossy(&output.stdout).into_owned();
    match output.status.code() {
        Some(0) => Ok((true, report)),
        Some(1) if report.contains("failed") => Ok((false, report)),
        _ => Err(format!("{report}{}", String::from_utf8_lossy(&output.stderr))),
    }
}

#[test]
fn every_kernel_compiles_in_dawn() {
    let all = shaders();
    let list: Vec<_> =
        all.iter().filter(|s| !s.coopmat()).map(|s| (s.kernel.name, s.device, s.browser_text())).collect();
    match dawn("kernels.json", &list) {
        Ok((good, report)) => {
            assert!(good, "{report}");
            loud(&format!("dawn: {}", report.trim().replace('\n', "; ")));
        }
        Err(why) => loud(&format!("not run: dawn: {why}")),
    }
}

/// Negative control: texts that naga accepts and a browser refuses.
#[test]
fn faults_are_found() {
    let head = "@group(0) @binding(0) var<storage, read_write> a: array<u32>;
        @compute @workgroup_size(64) fn f(@builtin(local_invocation_index) i: u32) {";
    let barrier = format!("{head} if a[i] > 3u {{ workgroupBarrier(); }} a[i] = 1u; }}");
    let subgroup = format!("enable subgroups; {head} if i < 3u {{ a[i] = subgroupAdd(i); }} }}");
    let memory = format!("var<workgroup> w: array<u32, 5000>; {head} w[i] = a[i]; a[i] = w[63u - i]; }}");
    let good = format!("{head} a[i] = i; }}");
    for (text, wanted) in [(good, true), (barrier, false), (subgroup, false), (memory, false)] {
        match dawn("fault.json", &[("f", "test", text.clone())]) {
            Ok((good, report)) => assert_eq!(good, wanted, "{text}\n{report}"),
            Err(why) => loud(&format!("not run: dawn: {why}")),
        }
    }
}
