#!/usr/bin/env bash
# No WGSL text that adds over a subgroup is accepted by both compilers. Tint (Dawn, Chromium) wants `enable subgroups;` in front;
# naga (wgpu, Firefox) has the operations and refuses that line. So a shader for both is two texts. And what naga accepts is not
# yet a shader for the web: an addition in a branch that not all invocations take compiles with naga, while Tint refuses it,
# because the language wants it in uniform control flow.
. "$(dirname "$0")/lib.sh"
command -v cargo >/dev/null || not_run "cargo is missing"
webgpu_on_swiftshader
mkdir -p naga/src shaders
shader() { # shader NAME FIRST-LINE BODY
    printf '%s\n@group(0) @binding(0) var<storage, read_write> o: array<u32>;\n@compute @workgroup_size(32) fn main(@builtin(local_invocation_id) l: vec3u) { %s }\n' "$2" "$3" >"shaders/$1"
}
shader 1-with-the-line 'enable subgroups;' 'o[l.x] = subgroupAdd(l.x);'
shader 2-without-the-line '' 'o[l.x] = subgroupAdd(l.x);'
shader 3-in-a-branch '' 'if (l.x < 3u) { o[l.x] = subgroupAdd(l.x); }'
shader 4-in-a-branch-with-the-line 'enable subgroups;' 'if (l.x < 3u) { o[l.x] = subgroupAdd(l.x); }'
cat >naga/Cargo.toml <<'E'
[package]
name = "f"
version = "0.0.0"
edition = "2024"
[workspace]
[dependencies]
naga = { version = "=30.0.1", features = ["wgsl-in"] }
E
cat >naga/src/main.rs <<'E'
use naga::valid::{Capabilities, ValidationFlags, Validator};
fn main() {
    for file in std::env::args().skip(1) {
        let text = std::fs::read_to_string(&file).unwrap();
        let accepted = match naga::front::wgsl::parse_str(&text) {
            Err(_) => false,
            Ok(module) => Validator::new(ValidationFlags::all(), Capabilities::all()).validate(&module).is_ok(),
        };
        println!("naga {file}: {}", if accepted { "accepted" } else { "refused" });
    }
}
E
cat >tint.mjs <<'E'
import { readFileSync } from 'node:fs';
import { device } from './webgpu.mjs';
for (const file of process.argv.slice(2)) {
  device.pushErrorScope('validation');
  device.createShaderModule({ code: readFileSync(file, 'utf8') });
  console.log(`Tint ${file}: ${(await device.popErrorScope()) ? 'refused' : 'accepted'}`);
}
process.exit(0);
E
cargo build --quiet --manifest-path naga/Cargo.toml --target-dir "${CARGO_TARGET_DIR:-$work/target}" || not_run "naga could not be built"
both() {
    "${CARGO_TARGET_DIR:-$work/target}/debug/f" shaders/*
    node tint.mjs shaders/*
}
run both
expect <<'E'
naga shaders/1-with-the-line: refused
naga shaders/2-without-the-line: accepted
naga shaders/3-in-a-branch: accepted
naga shaders/4-in-a-branch-with-the-line: refused
driver: SwiftShader driver 5.0.0
Tint shaders/1-with-the-line: accepted
Tint shaders/2-without-the-line: refused
Tint shaders/3-in-a-branch: refused
Tint shaders/4-in-a-branch-with-the-line: refused
E
