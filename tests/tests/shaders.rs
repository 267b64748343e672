//! Every kernel's text on every kind of device: naga accepts it, it says what the Rust side says, it fits
//! the device, and it becomes SPIR-V, MSL and HLSL.
#![forbid(unsafe_code)]

use naga::back::{hlsl, msl, spv};
use naga::proc::{BoundsCheckPolicies, BoundsCheckPolicy};
use naga::valid::ModuleInfo;
use naga::{Module, ResourceBinding, ShaderStage};
use nemoflash::Caps;
use nemoflash::ops::examples;
use nemoflash_tests::{Shader, kinds, parse, reflect, shaders, spoil};
use std::collections::{BTreeMap, BTreeSet};

/// Translates as wgpu's backends do: the language version that the features need, bounds checks on.
fn translate(shader: &Shader, module: &Module, info: &ModuleInfo) -> Result<(), String> {
    let name = shader.kernel.name.to_string();
    let checks = BoundsCheckPolicies {
        index: BoundsCheckPolicy::Restrict,
        buffer: BoundsCheckPolicy::Restrict,
        ..Default::default()
    };
    let subgroups = shader.caps.subgroup.is_some();
    let bindings = (0..=shader.kernel.binds.len() as u8).map(|i| ResourceBinding { group: 0, binding: i.into() });

    let options = spv::Options {
        lang_version: if subgroups { (1, 3) } else { (1, 0) },
        bounds_check_policies: checks,
        ..Default::default()
    };
    let pipeline = spv::PipelineOptions { shader_stage: ShaderStage::Compute, entry_point: name.clone() };
    let words = spv::write_vec(module, info, &options, Some(&pipeline)).map_err(|e| format!("SPIR-V: {e}"))?;
    if words.first() != Some(&0x0723_0203) {
        return Err("SPIR-V: no magic number".into());
    }
    if shader.coopmat() {
        return Ok(());
    }

    let target = |i| msl::BindTarget { buffer: Some(i), mutable: true, ..Default::default() };
    let resources = msl::EntryPointResources {
        resources: bindings.clone().zip(0..).map(|(at, i)| (at, target(i))).collect(),
        sizes_buffer: Some(30),
        ..Default::default()
    };
    let options = msl::Options {
        lang_version: if subgroups { (2, 4) } else { (2, 0) },
        per_entry_point_map: [(name.clone(), resources)].into(),
        fake_missing_bindings: false,
        bounds_check_policies: checks,
        ..Default::default()
    };
    let result = msl::write_string(module, info, &options, &Default::default());
    let (_, translated) = result.map_err(|e| format!("MSL: {e}"))?;
    for entry in translated.entry_point_names {
        entry.map_err(|e| format!("MSL: {e:?}"))?;
    }

    let target = |i| hlsl::BindTarget { register: i, ..Default::default() };
    let options = hlsl::Options {
        shader_model: match (shader.caps.f16, subgroups) {
            (true, _) => hlsl::ShaderModel::V6_2,
            (false, true) => hlsl::ShaderModel::V6_0,
            (false, false) => hlsl::ShaderModel::V5_1,
        },
        binding_map: bindings.zip(0..).map(|(at, i)| (at, target(i))).collect(),
        special_constants_binding: Some(hlsl::BindTarget { space: 1, ..Default::default() }),
        fake_missing_bindings: false,
        ..Default::default()
    };
    let (mut text, pipeline) = (String::new(), Default::default());
    let result = hlsl::Writer::new(&mut text, &options, &pipeline).write(module, info, None);
    for entry in result.map_err(|e| format!("HLSL: {e}"))?.entry_point_names {
        entry.map_err(|e| format!("HLSL: {e:?}"))?;
    }
    Ok(())
}

fn check(shader: &Shader) -> Result<(), String> {
    let (module, info) = parse(shader)?;
    reflect(shader, &module, &info)?;
    translate(shader, &module, &info)
}

#[test]
fn every_kernel() {
    let all = shaders();
    let kernels: BTreeSet<&str> = all.iter().map(|shader| shader.kernel.name).collect();
    // The same fault in several texts of a kernel is told once.
    let mut failures = BTreeMap::new();
    for shader in &all {
        if let Err(e) = check(shader) {
            let first = (shader.kernel.name, e.lines().next().unwrap_or_default().to_string());
            failures.entry(first).or_insert(format!("{} ({}): {e}", shader.kernel.name, shader.device));
        }
    }
    let failures: Vec<String> = failures.into_values().collect();
    println!("{} texts of {} kernels", all.len(), kernels.len());
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
    let files = nemoflash_shaders::FILES.iter().map(|(file, _)| *file).filter(|file| !file.starts_with("lib/"));
    let files: BTreeSet<&str> = files.map(|file| file.trim_end_matches(".wgsl")).collect();
    assert_eq!(files, kernels, "kernel files, and kernels that some operator's examples use");
}

/// Pipelines are kept by kernel name and constants, so these must decide the text.
#[test]
fn constants_decide_the_text() {
    for (kind, caps) in kinds() {
        let mut texts = BTreeMap::new();
        for case in examples() {
            let (kernel, consts) = (case.op.kernel(), case.op.consts(&caps));
            let text = kernel.source(&consts, &caps);
            let first = texts.entry((kernel.name, consts.clone())).or_insert_with(|| text.clone());
            assert!(*first == text, "{} with {consts:?} has two texts ({kind})", kernel.name);
        }
    }
}

/// The numbers that no text of a kernel reads: they are the host's.
fn unread<'a>(fields: &[(&'a str, &str)], texts: &[&str]) -> Vec<&'a str> {
    let reads = |text: &str, name: &str| {
        text.match_indices(&format!("n.{name}")).any(|(at, found)| {
            let word = |c: char| c.is_alphanumeric() || c == '_';
            !text[..at].ends_with(word) && !text[at + found.len()..].starts_with(word)
        })
    };
    fields.iter().map(|(name, _)| *name).filter(|name| !texts.iter().any(|text| reads(text, name))).collect()
}

#[test]
fn every_number_is_read() {
    let all = shaders();
    for kernels in all.chunk_by(|a, b| a.kernel.name == b.kernel.name) {
        let texts: Vec<&str> = kernels.iter().map(|shader| &*shader.text).collect();
        assert_eq!(unread(kernels[0].fields, &texts), [""; 0], "{}", kernels[0].kernel.name);
    }
    // Negative control.
    let texts = ["in.rows + n.rows_of + n.cols;", "n.eps"];
    let fields = ["rows", "cols", "eps", "more"].map(|name| (name, "u32"));
    assert_eq!(unread(&fields, &texts), ["rows", "more"]);
}

/// What the operators' suite spoils workgroup memory with is valid for every kernel on every kind of device.
#[test]
fn every_spoiled_text_is_valid() {
    let (spoiled, same): (Vec<_>, Vec<_>) =
        shaders().into_iter().partition(|shader| shader.text.contains("var<workgroup>"));
    for shader in spoiled {
        let shader = Shader { text: spoil(shader.text.clone()), ..shader };
        assert!(shader.text.contains("spoil_nan"), "{} on {}", shader.kernel.name, shader.device);
        parse(&shader).unwrap_or_else(|e| panic!("{} on {}: {e}", shader.kernel.name, shader.device));
    }
    assert!(same.iter().all(|shader| spoil(shader.text.clone()) == shader.text));
}

/// Negative control: each disturbance of a good kernel is found, by the check that is meant to find it.
#[test]
fn faults_are_found() {
    let all = shaders();
    let good = all
        .iter()
        .find(|s| s.kernel.name == "rms_norm" && s.device == "floor" && s.text.contains("WG: u32 = 64u"))
        .expect("rms_norm exists");
    assert_eq!(check(good), Ok(()));
    let text = |from: &str, to: &str| {
        assert!(good.text.contains(from), "{from}");
        Shader { text: good.text.replacen(from, to, 1), ..good.clone() }
    };
    let subgroup = Shader { caps: Caps { subgroup: Some(8), ..Caps::FLOOR }, ..all[0].clone() };
    let subgroup = Shader { text: "const X: u32 = subgroupAdd(1u);".into(), ..subgroup };
    let faults = [
        (text("rows: u32,\n    width: u32", "width: u32,\n    rows: u32"), "numbers:"),
        (text("eps: f32", "eps: u32").replaced("n.eps", "f32(n.eps)"), "numbers:"),
        (text("eps: f32,", "eps: f32,\n    more: u32,"), "numbers:"),
        (text("fn rms_norm", "fn other"), "entry point"),
        (text("@group(0) @binding(1)", "@group(1) @binding(1)"), "group of x"),
        (text("@binding(2)", "@binding(4)"), "binding 4"),
        (text("@binding(1) var<storage, read> x", "@binding(1) var<storage, read_write> x"), "x is written"),
        (text("w: array<vec4<f32>>", "w: array<vec4<u32>>").replaced("* w[i]", "* vec4<f32>(w[i])"), "w holds"),
        (text("w: array<vec4<f32>>", "w: array<vec4<f32>, 96>"), "fixed size"),
        (text("const WG: u32 = 64u", "const WG: u32 = 512u"), "invocations"),
        (text("array<vec4<f32>, WG>", "array<vec4<f32>, 2048>"), "workgroup memory"),
        (text("let inside", "let inside: f32"), "error"),
        (text("-> f32 {", "-> f32 { let s = subgroupAdd(value);"), "apabilit"),
        (subgroup, "error"),
    ];
    for (shader, words) in &faults {
        let error = check(shader).expect_err(words);
        assert!(error.contains(words), "`{words}` is not in: {error}");
    }
}

trait Replaced {
    fn replaced(self, from: &str, to: &str) -> Self;
}

impl Replaced for Shader {
    fn replaced(mut self, from: &str, to: &str) -> Shader {
        assert!(self.text.contains(from), "{from}");
        self.text = self.text.replace(from, to);
        self
    }
}
