//! Results of `bench` as they come from machines, made from the format's own types: the values are invented.

use nemoflash_bench::report::{
    Clock, Device, Gate, Kind, Model, Operator, Percentiles, Report, Row, SCHEMA, Software, Summary, Test, Time,
};

/// Repetitions.
const RUNS: usize = 6;

/// A device with its program, and how long it takes.
pub struct Machine {
    pub software: Software,
    pub device: Device,
    /// Seconds of a decode step.
    pub step: f64,
    /// Seconds more of a step for 1,000 tokens in front.
    pub per_depth: f64,
    /// Bytes per second that it copies.
    pub bandwidth: f64,
}

fn machine(adapter: &str, backend: &str, kind: &str, step: f64) -> Machine {
    let browser = backend == "webgpu";
    Machine {
        software: Software {
            version: "0.1.0".into(),
            commit: Some("b50d1d9c0ffe".into()),
            wgpu: "30.0.1".into(),
            runtime: if browser { "browser" } else { "native" }.into(),
            host: if browser { "Chromium 143.0.7499.40, linux x86_64" } else { "linux x86_64" }.into(),
        },
        device: Device {
            adapter: adapter.into(),
            backend: backend.into(),
            kind: kind.into(),
            driver: if browser { String::new() } else { format!("{adapter} 580.159.04") },
            f16: kind != "cpu",
            subgroup: (backend != "cpu").then_some(if kind == "cpu" { 8 } else { 32 }),
            coopmat: kind == "discrete" && !browser,
            denied: vec![],
        },
        step,
        per_depth: step * 0.02,
        bandwidth: if kind == "discrete" { 2.6e12 } else { 9e9 },
    }
}

pub fn h100() -> Machine {
    machine("NVIDIA H100 80GB HBM3", "vulkan", "discrete", 0.000157)
}

pub fn llvmpipe() -> Machine {
    machine("llvmpipe (LLVM 19.1.7, 256 bits)", "vulkan", "cpu", 0.0135)
}

pub fn swiftshader() -> Machine {
    machine("SwiftShader Device (Subzero)", "vulkan", "cpu", 0.0356)
}

/// The same in a page.
pub fn browser() -> Machine {
    machine("google swiftshader", "webgpu", "cpu", 0.0562)
}

pub fn cpu() -> Machine {
    machine("cpu", "cpu", "cpu", 0.00313)
}

/// The model that is built in.
pub fn fables() -> Model {
    Model {
        name: "fables".into(),
        synthetic: false,
        weights: "bf16".into(),
        kv: "f16".into(),
        bytes_per_token: 13_500_000,
        prefill_scan: Some("serial".into()),
        dispatches_per_token: 35,
        weight_bytes: 13_500_000,
        arena_bytes: 9_200_000,
        scratch_bytes: 2_100_000,
    }
}

/// A published shape.
pub fn one_billion() -> Model {
    Model {
        name: "nemotron-flash-1b".into(),
        synthetic: true,
        bytes_per_token: 1_920_000_000,
        prefill_scan: Some("chunked".into()),
        dispatches_per_token: 66,
        weight_bytes: 1_920_000_000,
        arena_bytes: 61_000_000,
        ..fables()
    }
}

fn test(name: &str, kind: Kind, prompt: u32, tokens: u32, depth: u32) -> Test {
    Test { name: name.into(), kind, prompt, tokens, depth, batch: 1 }
}

/// Decode of 128 tokens behind `depth`.
pub fn decode(depth: u32) -> Test {
    let name = if depth == 0 { "tg128".into() } else { format!("tg128 @ d{depth}") };
    test(&name, Kind::Decode, 0, 128, depth)
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    (sorted[(sorted.len() - 1) / 2] + sorted[sorted.len() / 2]) / 2.0
}

fn summary(values: &[f64]) -> Summary {
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    let sd = (values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (values.len().max(2) - 1) as f64).sqrt();
    let low = values.iter().copied().fold(f64::INFINITY, f64::min);
    let high = values.iter().copied().fold(0.0, f64::max);
    Summary { mean, sd, median: median(values), low, high }
}

/// Seconds around a value, the same at every call: up to 2 % above and below.
pub fn around(seconds: f64, count: usize) -> Vec<f64> {
    (0..count).map(|n| seconds * (1.0 + 0.02 * (n as f64 * 2.4 + seconds.fract() * 10.0).sin())).collect()
}

/// A row of these samples.
pub fn row(machine: &Machine, model: &Model, test: Test, samples: Vec<f64>) -> Row {
    let tokens = f64::from((test.tokens + test.prompt) * test.batch);
    let rates: Vec<f64> = samples.iter().map(|seconds| tokens / seconds).collect();
    let counts = !matches!(test.kind, Kind::Load | Kind::Compile | Kind::FirstToken);
    let decode = test.kind == Kind::Decode;
    let step = median(&samples) / f64::from(test.tokens.max(1));
    let mut token_samples = if decode { around(step, 64) } else { vec![] };
    // Now and then something else runs.
    token_samples.iter_mut().step_by(21).for_each(|seconds| *seconds *= 1.6);
    let mut sorted = token_samples.clone();
    sorted.sort_by(f64::total_cmp);
    let at = |share: f64| sorted[((sorted.len() - 1) as f64 * share) as usize];
    let rate = model.bytes_per_token as f64 / step;
    let gpu = machine.device.backend != "cpu";
    Row {
        schema: SCHEMA.into(),
        date: "2026-11-20T09:30:00Z".into(),
        software: machine.software.clone(),
        device: machine.device.clone(),
        model: model.clone(),
        gate: if model.synthetic { Gate::NotRun } else { Gate::Passed },
        said: (1..=32).collect(),
        time: Time {
            clock: Clock::Wall,
            seconds: Some(summary(&samples)),
            tokens_per_second: counts.then(|| summary(&rates)),
            samples,
            token_seconds: decode.then(|| Percentiles { p50: at(0.5), p90: at(0.9), p99: at(0.99), max: at(1.0) }),
            token_samples,
            bytes_per_second: decode.then_some(rate),
            bandwidth_share: (decode && gpu).then_some((rate / machine.bandwidth).min(0.97)),
            busy_share: (decode && gpu).then_some(0.91),
        },
        operators: if decode && gpu && test.depth == 0 { operators(step * 0.91, model) } else { vec![] },
        test,
        warnings: vec![],
        error: None,
    }
}

fn operators(seconds: f64, model: &Model) -> Vec<Operator> {
    let list = [
        ("ffn", "matvec_gate", "2048 x 12288", 12, 0.31),
        ("ffn", "matvec_add", "6144 x 2048", 12, 0.15),
        ("head", "logits", "2048 x 131072", 1, 0.14),
        ("mamba2", "matvec_norm", "2048 x 8512", 6, 0.09),
        ("mamba2", "matvec_norm_add", "4096 x 2048", 6, 0.06),
        ("deltanet", "matvec_norm", "2048 x 6160", 4, 0.06),
        ("mamba2", "ssd_step", "64 heads of 64 x 128", 6, 0.05),
        ("attention", "matvec_norm", "2048 x 3072", 2, 0.04),
        ("deltanet", "delta_step", "16 heads of 128 x 128", 4, 0.04),
        ("attention", "attention_step", "32 heads of 128", 2, 0.03),
        ("pick", "pick_scan", "131072", 1, 0.02),
        ("embedding", "embed", "2048", 1, 0.01),
    ];
    let operator = |(part, kernel, op, dispatches, share): (&str, &str, &str, u32, f64)| Operator {
        part: part.into(),
        kernel: kernel.into(),
        op: op.into(),
        dispatches,
        seconds: seconds * share,
        bytes: (model.bytes_per_token as f64 * share) as u64,
    };
    list.into_iter().map(operator).collect()
}

/// Every kind of test on a machine.
pub fn rows(machine: &Machine, model: &Model) -> Vec<Row> {
    // A step goes by the model's bytes where they are many.
    let step = machine.step.max(model.bytes_per_token as f64 / machine.bandwidth * 1.3);
    let prefill = test("pp512", Kind::Prefill, 512, 0, 0);
    let mut rows = vec![
        row(machine, model, test("load", Kind::Load, 0, 0, 0), around(1.2 + step * 20.0, RUNS)),
        row(machine, model, test("first token", Kind::FirstToken, 32, 1, 0), around(step * 3.0, RUNS)),
        row(machine, model, prefill, around(step * 40.0, RUNS)),
    ];
    for depth in [0, 512, 4096] {
        let step = step + machine.per_depth * f64::from(depth) / 1000.0;
        rows.push(row(machine, model, decode(depth), around(step * 128.0, RUNS)));
    }
    rows
}

/// As a JSON file.
pub fn json(rows: Vec<Row>) -> String {
    serde_json::to_string_pretty(&Report { schema: SCHEMA.into(), rows }).expect("a report")
}

/// As JSON lines.
pub fn jsonl(rows: &[Row]) -> String {
    rows.iter().map(|row| serde_json::to_string(row).expect("a row") + "\n").collect()
}

/// What `file` would hold: (name, text) of several machines, with what goes wrong on some.
pub fn files() -> Vec<(&'static str, String)> {
    let mut gpu = rows(&h100(), &fables());
    gpu.extend(rows(&h100(), &one_billion()));
    let mut exact = h100();
    exact.device.denied = vec!["coopmat".into()];
    exact.device.coopmat = false;
    let prefill = row(&exact, &one_billion(), test("pp512", Kind::Prefill, 512, 0, 0), around(0.033, RUNS));
    gpu.push(prefill);
    let mut software = rows(&llvmpipe(), &fables());
    software.extend(rows(&cpu(), &fables()));
    let warning = "repetitions differ by more than 10 %: close other programs, or measure more of them with -r";
    software[3].warnings.push(warning.into());
    let mut swift = rows(&swiftshader(), &fables());
    swift.extend(rows(&browser(), &fables()));
    let deep = swift.last_mut().expect("rows");
    deep.error = Some("the device was lost in the middle of a step".into());
    deep.time = Time {
        samples: vec![],
        seconds: None,
        tokens_per_second: None,
        token_samples: vec![],
        token_seconds: None,
        ..deep.time.clone()
    };
    vec![("h100.json", json(gpu)), ("software.jsonl", jsonl(&software)), ("swiftshader.json", json(swift))]
}
