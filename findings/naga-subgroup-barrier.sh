#!/usr/bin/env bash
# naga's `subgroupBarrier()` orders memory on Metal alone. One would guess that threads of a subgroup see what the others wrote to
# workgroup memory before it, as after `workgroupBarrier()`. In Metal's language it becomes a barrier with the threadgroup's memory. In
# SPIR-V it becomes one whose only kind of memory is SubgroupMemory, which Vulkan's rules tell drivers to ignore; and in HLSL it
# becomes nothing at all. So a kernel that passes numbers through workgroup memory inside of a subgroup is right on a Mac and has a
# race elsewhere: there it needs `workgroupBarrier()`.
. "$(dirname "$0")/lib.sh"
command -v cargo >/dev/null || not_run "cargo is missing"
mkdir -p naga/src
cat >naga/Cargo.toml <<'E'
[package]
name = "f"
version = "0.0.0"
edition = "2024"
[workspace]
[dependencies]
naga = { version = "=30.0.1", features = ["wgsl-in", "spv-out", "msl-out", "hlsl-out"] }
E
cat >naga/src/main.rs <<'E'
use naga::valid::{Capabilities, ValidationFlags, Validator};

/// Execution scope, memory scope and memory semantics of the barriers in a SPIR-V module.
fn barriers(words: &[u32]) -> Vec<[u32; 3]> {
    let (mut constants, mut found, mut at) = (std::collections::HashMap::new(), vec![], 5);
    while at < words.len() {
        let (op, len) = (words[at] & 0xffff, (words[at] >> 16) as usize);
        match op {
            43 => drop(constants.insert(words[at + 2], words[at + 3])), // OpConstant
            224 => found.push([1, 2, 3].map(|i| constants[&words[at + i]])), // OpControlBarrier
            _ => {}
        }
        at += len;
    }
    found
}

fn main() {
    for name in ["workgroupBarrier", "subgroupBarrier"] {
        let text = format!(
            "var<workgroup> shared_values: array<u32, 32>;
            @group(0) @binding(0) var<storage, read_write> o: array<u32>;
            @compute @workgroup_size(32) fn main(@builtin(local_invocation_index) l: u32) {{
                shared_values[l] = l;
                {name}();
                o[l] = shared_values[l ^ 1u];
            }}"
        );
        let module = naga::front::wgsl::parse_str(&text).expect("WGSL");
        let info = Validator::new(ValidationFlags::all(), Capabilities::all()).validate(&module).expect("valid");
        let options = naga::back::spv::Options {
            zero_initialize_workgroup_memory: naga::back::spv::ZeroInitializeWorkgroupMemoryMode::None,
            ..Default::default()
        };
        let spirv = naga::back::spv::write_vec(&module, &info, &options, None).expect("SPIR-V");
        for [execution, memory, semantics] in barriers(&spirv) {
            let kinds = [(0x8, "AcquireRelease"), (0x80, "SubgroupMemory"), (0x100, "WorkgroupMemory")];
            let kinds: Vec<_> = kinds.iter().filter(|(bit, _)| semantics & bit != 0).map(|(_, kind)| *kind).collect();
            println!("{name}, SPIR-V: scopes {execution} and {memory}, {}", kinds.join(" | "));
        }
        let options = naga::back::msl::Options { zero_initialize_workgroup_memory: false, ..Default::default() };
        let pipeline = Default::default();
        let (msl, _) = naga::back::msl::write_string(&module, &info, &options, &pipeline).expect("MSL");
        let options = naga::back::hlsl::Options { zero_initialize_workgroup_memory: false, ..Default::default() };
        let mut hlsl = String::new();
        naga::back::hlsl::Writer::new(&mut hlsl, &options, &Default::default()).write(&module, &info, None).expect("HLSL");
        for (language, text) in [("Metal", msl), ("HLSL", hlsl)] {
            let lines: Vec<_> = text.lines().map(str::trim).filter(|line| line.to_lowercase().contains("barrier(") || line.contains("GroupSync")).collect();
            println!("{name}, {language}: {}", if lines.is_empty() { "nothing".into() } else { lines.join(" ") });
        }
    }
}
E
cargo build --quiet --manifest-path naga/Cargo.toml --target-dir "${CARGO_TARGET_DIR:-$work/target}" || not_run "naga could not be built"
run "${CARGO_TARGET_DIR:-$work/target}/debug/f"
expect <<'E'
workgroupBarrier, SPIR-V: scopes 2 and 2, AcquireRelease | WorkgroupMemory
workgroupBarrier, Metal: metal::threadgroup_barrier(metal::mem_flags::mem_threadgroup);
workgroupBarrier, HLSL: GroupMemoryBarrierWithGroupSync();
subgroupBarrier, SPIR-V: scopes 3 and 3, AcquireRelease | SubgroupMemory
subgroupBarrier, Metal: metal::simdgroup_barrier(metal::mem_flags::mem_threadgroup);
subgroupBarrier, HLSL: nothing
E
