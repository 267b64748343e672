//! The report of a benchmark: rows, each of which can be understood alone. `benches/report.schema.json` describes the
//! same format as JSON Schema.

use serde::{Deserialize, Serialize};

/// The version of the format. A file of another version is refused by name.
pub const SCHEMA: &str = "nemoflash-bench/1";

/// A file of rows. As JSON lines, each line is a [`Row`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: String,
    /// In the order in which they were measured.
    pub rows: Vec<Row>,
}

/// One test on one device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// [`SCHEMA`].
    pub schema: String,
    /// The time of the measurement: RFC 3339, UTC.
    pub date: String,
    /// The program.
    pub software: Software,
    /// The device.
    pub device: Device,
    /// The model.
    pub model: Model,
    /// Whether the device gives the right tokens.
    pub gate: Gate,
    /// What this model says on the device after a fixed prompt, greedily ([`said`](super::said)). Devices that
    /// compute alike say the same. Empty if the model was not asked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub said: Vec<u32>,
    /// What was timed.
    pub test: Test,
    /// The times.
    pub time: Time,
    /// The device's time of each operator, largest first. Empty if the device cannot measure it.
    pub operators: Vec<Operator>,
    /// Warnings about what makes the numbers less certain, each with what to do about it.
    pub warnings: Vec<String>,
    /// Why there is no result. `time.samples` is then empty.
    pub error: Option<String>,
}

/// The program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Software {
    /// Version of nemoflash.
    pub version: String,
    /// The commit it was built from, if that is known.
    pub commit: Option<String>,
    /// Version of wgpu.
    pub wgpu: String,
    /// `native`, `browser` or `node`.
    pub runtime: String,
    /// Operating system and architecture, or the browser with its version.
    pub host: String,
}

/// The device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// The adapter's name, or `cpu`.
    pub adapter: String,
    /// `vulkan`, `metal`, `dx12`, `gl`, `webgpu` or `cpu`; `unknown` if the program died before it could tell.
    pub backend: String,
    /// `discrete`, `integrated`, `virtual`, `cpu` or `other`.
    pub kind: String,
    /// Driver name and version; empty where nobody tells.
    pub driver: String,
    /// Whether f16 arithmetic is used.
    pub f16: bool,
    /// The subgroup size that is used, if subgroup operations are.
    pub subgroup: Option<u32>,
    /// Whether cooperative matrices are used.
    pub coopmat: bool,
    /// Features that were denied: `f16`, `subgroups`, `coopmat`.
    pub denied: Vec<String>,
}

/// The model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Model {
    /// Its folder's, repository's or shape's name.
    pub name: String,
    /// Whether its weights are random: a shape, not a model.
    pub synthetic: bool,
    /// How matrices are stored: `bf16`, `q8`, `q4`, or what the folder has.
    pub weights: String,
    /// How keys and values are stored: `f16` or `f32`.
    pub kv: String,
    /// Bytes that one decode step of one sequence moves at least.
    pub bytes_per_token: u64,
    /// Dispatches of such a step.
    pub dispatches_per_token: u64,
    /// Bytes on the device: weights, what sequences remember, and the rest.
    pub weight_bytes: u64,
    /// See `weight_bytes`.
    pub arena_bytes: u64,
    /// See `weight_bytes`.
    pub scratch_bytes: u64,
}

/// Whether the golden tokens were right on this device. They are checked before anything is timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Gate {
    /// They were right.
    Passed,
    /// They were wrong: the times are those of a wrong program.
    Failed,
    /// They were not checked.
    NotRun,
}

/// What a row times.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// From the first file to an engine that is ready, compilation included.
    Load,
    /// Compilation of the kernels of prefill and decode alone.
    Compile,
    /// From the prompt to the first token.
    FirstToken,
    /// Prefill of `prompt` tokens.
    Prefill,
    /// Decode of `tokens` tokens.
    Decode,
    /// Prompt and decode in one.
    EndToEnd,
}

/// What was timed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Test {
    /// In llama-bench's words: `pp512`, `tg128`, `tg128 @ d4096`, `pp512+tg128`, with ` b8` for 8 sequences; or `load`,
    /// `compile`, `first token`.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// Tokens of the prompt.
    pub prompt: u32,
    /// Tokens decoded by each sequence.
    pub tokens: u32,
    /// Tokens in front of what is timed.
    pub depth: u32,
    /// Sequences at a time.
    pub batch: u32,
}

/// The times of a test. Rates follow from the seconds and the test.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Time {
    /// `wall` or `device`; never both in one column.
    pub clock: Clock,
    /// Seconds of each repetition, in their order. The first run is not among them.
    pub samples: Vec<f64>,
    /// Statistics of the samples, if there is at least one.
    pub seconds: Option<Summary>,
    /// Tokens per second of the repetitions: of all sequences together. None for what has no tokens.
    pub tokens_per_second: Option<Summary>,
    /// Seconds from each token to the next, of all repetitions in order: as they arrive on the host. Empty but for decode.
    pub token_samples: Vec<f64>,
    /// Percentiles of these.
    pub token_seconds: Option<Percentiles>,
    /// `model.bytes_per_token` over the median time of a token, in bytes per second; for decode.
    pub bytes_per_second: Option<f64>,
    /// That as a share of the device's memory bandwidth.
    pub bandwidth_share: Option<f64>,
    /// Share of the median time in which the device computes, from its timestamps.
    pub busy_share: Option<f64>,
}

/// Which clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Clock {
    /// The host's: what a person waits.
    Wall,
    /// The device's timestamps.
    Device,
}

/// Statistics of some numbers.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Arithmetic mean.
    pub mean: f64,
    /// Standard deviation of the sample (n - 1); 0 for one.
    pub sd: f64,
    /// The middle one, or the mean of the two in the middle.
    pub median: f64,
    /// Bootstrap interval of the median, 95 %.
    pub low: f64,
    /// See `low`.
    pub high: f64,
}

/// The values at or below which 50, 90 and 99 of 100 numbers are.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Percentiles {
    /// 50 %.
    pub p50: f64,
    /// 90 %.
    pub p90: f64,
    /// 99 %.
    pub p99: f64,
    /// The largest.
    pub max: f64,
}

/// The dispatches of one operator in one step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Operator {
    /// The part of the model: `embedding`, a kind of block (`attention`, `mamba2`, `deltanet`, `ffn`), `head` or `pick`.
    pub part: String,
    /// The kernel.
    pub kernel: String,
    /// The operator with its numbers.
    pub op: String,
    /// Dispatches of it in a step.
    pub dispatches: u32,
    /// Seconds of all of them together, on the device.
    pub seconds: f64,
    /// Bytes that all of them move at least.
    pub bytes: u64,
}
