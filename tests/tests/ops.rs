//! Every operator on every example size, on every device of the machine, against its CPU twin.
#![forbid(unsafe_code)]

use nemoflash::batch::Size;
use nemoflash::kernel::{Access, Const, Kernel, Source, write};
use nemoflash::op::{Example, Op};
use nemoflash::ops::{Case, seeded};
use nemoflash::{Caps, Elem, Error};
use nemoflash_tests::{Job, Mode, check_case, close, loud, targets, targets_in};
use std::collections::BTreeMap;
use std::time::Instant;

/// The examples, or those of the kernels that `NEMOFLASH_OPS` names.
fn cases() -> Vec<(u64, Case)> {
    let Ok(names) = std::env::var("NEMOFLASH_OPS") else { return seeded() };
    let wanted = |case: &Case| names.split(',').any(|name| name == case.op.kernel().name);
    let some: Vec<_> = seeded().into_iter().filter(|(_, case)| wanted(case)).collect();
    loud(&format!("ops: only the {} examples of NEMOFLASH_OPS={names}", some.len()));
    assert!(!some.is_empty(), "no kernel is named like that");
    some
}

/// Whether a kernel multiplies by a matrix. These take half of the time.
fn multiplies(kernel: &str) -> bool {
    kernel.starts_with("mat") || kernel == "logits"
}

#[test]
fn products_of_matrices() {
    operators("products of matrices", multiplies);
}

#[test]
fn other_operators() {
    operators("other operators", |kernel| !multiplies(kernel));
}

/// Every example of some kernels on every device in every mode: the CPU twin runs once for all of them. One example after the
/// other is in memory.
fn operators(suite: &str, wanted: fn(&str) -> bool) {
    let mut cases = cases();
    cases.retain(|(_, case)| wanted(case.op.kernel().name));
    if cases.is_empty() {
        assert!(std::env::var_os("NEMOFLASH_OPS").is_some(), "{suite}: there are none");
        return loud(&format!("{suite}: NEMOFLASH_OPS names none"));
    }
    let mut failures = vec![];
    let mut devices = vec![];
    // Only some adapters have cooperative matrices; where none has, that is told.
    for target in Mode::ALL.into_iter().flat_map(|mode| targets_in(suite, &[mode])) {
        match target.lend() {
            Ok(device) => devices.push((target, device, BTreeMap::<&str, (usize, f64, f64)>::new())),
            Err(e) => failures.push(format!("{target}: {e}")),
        }
    }
    for (seed, case) in cases {
        let coop_only = case.op.coop_only();
        let mut job = match Job::new(case, seed) {
            Ok(job) => job,
            Err(e) => {
                failures.push(e);
                continue;
            }
        };
        for (_, device, kernels) in &mut devices {
            // These examples run where an adapter has cooperative matrices; the devices' list tells where one has not.
            if coop_only && !device.exec.caps().coopmat {
                continue;
            }
            let (start, result) = (Instant::now(), job.check(device));
            let (passed, worst, seconds) = kernels.entry(job.kernel.name).or_default();
            *seconds += start.elapsed().as_secs_f64();
            match result {
                Ok(ratio) => (*passed, *worst) = (*passed + 1, worst.max(ratio)),
                Err(e) => failures.push(e),
            }
        }
    }
    for (target, device, kernels) in devices {
        loud(&device.summary());
        if kernels.is_empty() {
            failures.push(format!("{}: no example ran", device.label));
        }
        for (kernel, (passed, ratio, seconds)) in kernels {
            loud(&format!("    {kernel:<18} {passed:>3} examples pass, worst ratio {ratio:.1e}, {seconds:.1} s"));
        }
        target.give_back(device.exec);
    }
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
}

/// Negative control: for every binding that a kernel reads, some example's result changes with it.
#[test]
fn every_input_matters() {
    let all = targets("every_input_matters");
    let Some(target) = all.iter().find(|target| target.mode == Mode::Full) else { return };
    let mut device = target.lend().expect("the first device opens");
    let mut silent: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut skipped = 0;
    for ((_, again), (_, case)) in cases().into_iter().zip(cases()) {
        if !case.runs_on(device.exec.caps()) {
            skipped += 1;
            continue;
        }
        let kernel = case.op.kernel();
        let readable = kernel.binds.iter().filter(|b| b.access != Access::Write && b.name != "batch");
        // Integers are indices, and an operator that gives them gives the same ones again.
        let floats = readable.filter(|b| b.elem != Elem::U32).map(|b| b.name);
        let silent = silent.entry(kernel.name).or_insert_with(|| floats.collect());
        if !silent.is_empty() {
            let found = Job::new(again, 1).and_then(|mut job| job.sensitive(&case, &mut device, 2));
            let found = found.unwrap_or_else(|e| panic!("{e}"));
            silent.retain(|name| !found.contains(name));
        }
    }
    target.give_back(device.exec);
    if skipped > 0 {
        loud(&format!("not run: every_input_matters: {skipped} examples need cooperative matrices"));
    }
    silent.retain(|_, names| !names.is_empty());
    assert!(silent.is_empty(), "changing these inputs changes nothing: {silent:?}");
}

/// What a mode denies is really denied, so that the modes take different paths.
#[test]
fn modes_differ() {
    for target in targets("modes_differ") {
        let device = target.open().unwrap_or_else(|e| panic!("{target}: {e}"));
        let caps = device.exec.caps();
        let subgroups = target.adapter.subgroups.filter(|(min, max)| min == max && (4..=64).contains(min));
        assert_eq!(caps.coopmat, target.mode == Mode::Coopmat, "{target}");
        match target.mode {
            Mode::Coopmat => assert!(caps.coopmat, "{target}: {caps:?}"),
            Mode::Full => assert_eq!(caps.subgroup, subgroups.map(|(size, _)| size), "{target}"),
            Mode::Plain => assert!(caps.subgroup.is_none() && !caps.f16, "{target}: {caps:?}"),
            Mode::Floor => assert_eq!(*caps, Caps { timestamps: caps.timestamps, ..Caps::FLOOR }, "{target}"),
        }
    }
}

#[test]
fn comparison_finds_faults() {
    let want: Vec<f32> = (0..1000).map(|i| (i as f32).sin()).collect();
    let changed = |i: usize, value: f32| {
        let mut got = want.clone();
        got[i] = value;
        close("changed", &want, &got, 1e-3)
    };
    assert_eq!(close("equal", &want, &want, 0.0), Ok(0.0));
    assert!(changed(3, want[3] + 0.5).is_err());
    assert!(changed(999, f32::NAN).unwrap_err().contains("not finite"));
    assert!(changed(0, f32::INFINITY).unwrap_err().contains("not finite"));
    assert!(close("wanted NaN", &[f32::NAN], &[f32::NAN], 1.0).is_err());
    assert!(close("length", &want, &want[1..], 1.0).is_err());
    assert!(close("zeros", &[0.0; 4], &[0.0; 4], 0.0).is_ok());
    assert!(close("not zeros", &[0.0; 4], &[0.0, 0.0, 1e-3, 0.0], 1e-4).is_err());
}

nemoflash::numbers! {
    /// A kernel with a fault of choice.
    pub struct Faulty {
        /// See `KERNELS`.
        pub fault: u32,
    }
}

const HEAD: &str = "struct Numbers { fault: u32 }
@group(0) @binding(0) var<uniform> n: Numbers;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
@compute @workgroup_size(64)
fn faulty(@builtin(global_invocation_id) id: vec3<u32>, @builtin(local_invocation_index) local: u32) {";
const BINDS: &[nemoflash::kernel::Bind] = &[write("y", Elem::F32)];
/// 0 is right; each other has one fault.
const KERNELS: &[&[Source]] = &[
    &[Source::Text(HEAD), Source::Text("if id.x < 100u { y[id.x] = f32(id.x + n.fault); } }")],
    &[Source::Text(HEAD), Source::Text("y[id.x] = 0.0 and nothing WGSL knows; }")],
    &[Source::Text(HEAD), Source::Text("if id.x < 100u { y[id.x] = f32(id.x + n.fault); } } // too many workgroups")],
    &[Source::Text(HEAD), Source::Text("if id.x < 101u { y[id.x] = f32(id.x); } }")],
    &[Source::Text(HEAD), Source::Text("if id.x < 99u { y[id.x] = f32(id.x); } }")],
    &[Source::Text(HEAD), Source::Text("if id.x < 100u { y[id.x] = f32(id.x) * 1.001; } }")],
    &[Source::Text(HEAD), Source::Text("if id.x < 100u { y[id.x] = log(f32(id.x) - 1.0); } }")],
    // Workgroup memory that nobody wrote.
    &[
        Source::Text(HEAD),
        Source::Text("if id.x < 100u { y[id.x] = f32(id.x) + old[id.x % 4u]; } }"),
        Source::Text(SHARED),
    ],
];
const SHARED: &str = "var<workgroup> old: array<f32, 4>;";

impl Op for Faulty {
    fn kernel(&self) -> Kernel {
        Kernel { name: "faulty", parts: KERNELS[self.fault as usize], binds: BINDS }
    }
    fn consts(&self, _: &Caps) -> Vec<Const> {
        vec![("FAULT", self.fault)]
    }
    fn lens(&self) -> Vec<u64> {
        vec![100]
    }
    fn grid(&self, _: Size, _: &Caps) -> [u32; 3] {
        [if self.fault == 2 { 70_000 } else { 2 }, 1, 1]
    }
    fn cpu(&self, _: Size, bufs: &mut [Vec<u32>]) {
        (0..100).for_each(|i| bufs[0][i] = (i as f32).to_bits());
    }
    fn examples() -> Vec<Example<Self>> {
        vec![]
    }
}

/// Negative control of the harness: a text that does not compile, a dispatch that is not allowed, and
/// results that are wrong, missing, too many or not finite are all found, on every device.
#[test]
fn faulty_kernels_are_found() {
    for target in targets("faulty_kernels_are_found") {
        for fault in 0..KERNELS.len() as u32 {
            let mut device = target.open().unwrap_or_else(|e: Error| panic!("{target}: {e}"));
            let example = Example::rows(Faulty { fault }, 1);
            let case = Case { op: Box::new(example.op), batch: example.batch };
            let result = check_case(&mut device, case);
            println!("{target}: fault {fault}: {result:?}");
            assert_eq!(result.is_ok(), fault == 0, "{target}: fault {fault}: {result:?}");
        }
    }
}
