//! The report of a benchmark: rows, each of which can be understood alone. `benches/report.schema.json` describes the
//! same format as JSON Schema.

use serde::{Deserialize, Serialize};

/// The version of the format. A file of another version is an error that names it.
pub const SCHEMA: &str = "nemoflash-bench/1";

/// A file of rows. As JSON lines, each line is a [`Row`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: String,
    /// The rows, in the order in which they were measured.
    pub rows: Vec<Row>,
}

/// One test on one device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// [`SCHEMA`].
    pub schema: String,
    /// The date and time of the measurement: RFC 3339, UTC.
    pub date: String,
    /// The program that measured.
    pub software: Software,
    /// The device.
    pub device: Device,
    /// The model.
    pub model: Model,
    /// The result of the golden check on the device.
    pub gate: Gate,
    /// The tokens that this model says on the device after a fixed prompt, with greedy choice ([`said`](super::said)).
    /// Devices that compute the same say the same. Empty if the model was not asked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub said: Vec<u32>,
    /// The test.
    pub test: Test,
    /// The times.
    pub time: Time,
    /// The device's time of each operator, largest first. Empty if it could not be measured.
    pub operators: Vec<Operator>,
    /// Warnings about what makes the numbers less certain, each with what to do about it.
    pub warnings: Vec<String>,
    /// Why there is no result. `time.samples` is then empty.
    pub error: Option<String>,
}

/// The program that measured.
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

/// The device and the features that were used on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// The adapter's name, or `cpu`.
    pub adapter: String,
    /// `vulkan`, `metal`, `dx12`, `gl`, `webgpu` or `cpu`; `unknown` if the program died before it could tell.
    pub backend: String,
    /// `discrete`, `integrated`, `virtual`, `cpu` or `other`.
    pub kind: String,
    /// Driver name and version. Empty if they are not known.
    pub driver: String,
    /// Whether f16 arithmetic is used.
    pub f16: bool,
    /// The subgroup size, if subgroup operations are used.
    pub subgroup: Option<u32>,
    /// Whether cooperative matrices are used.
    pub coopmat: bool,
    /// Features that were denied: `f16`, `subgroups`, `coopmat`.
    pub denied: Vec<String>,
}

/// The model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Model {
    /// The name of its folder, of its repository or of its shape.
    pub name: String,
    /// Whether its weights are random. Its text then means nothing.
    pub synthetic: bool,
    /// How matrices are stored: `bf16`, `q8`, `q4`, or the format of the folder.
    pub weights: String,
    /// How keys and values are stored: `f16` or `f32`.
    pub kv: String,
    /// How Mamba2 and DeltaNet blocks read long prompts: `serial` or `chunked`. Rows of older versions do not say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefill_scan: Option<String>,
    /// Bytes that one decode step of one sequence moves at least.
    pub bytes_per_token: u64,
    /// Dispatches of one decode step of one sequence.
    pub dispatches_per_token: u64,
    /// Bytes of weights on the device.
    pub weight_bytes: u64,
    /// Bytes of sequence memory on the device.
    pub arena_bytes: u64,
    /// Bytes of all other buffers on the device.
    pub scratch_bytes: u64,
}

/// The result of the golden check, which runs before anything is timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Gate {
    /// The device gave the golden tokens.
    Passed,
    /// The device gave other tokens, so the times are those of a wrong program.
    Failed,
    /// The check was not run.
    NotRun,
}

/// The kind of a test.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Loading, from the first file to an engine that is ready, compilation included.
    Load,
    /// Only the compilation of the kernels of prefill and decode.
    Compile,
    /// Time from the prompt to the first token.
    FirstToken,
    /// Prefill of `prompt` tokens.
    Prefill,
    /// Decode of `tokens` tokens.
    Decode,
    /// A prompt and decode in one test.
    EndToEnd,
}

/// A test.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Test {
    /// Its name in the style of llama-bench: `pp512`, `tg128`, `tg128 @ d4096`, `pp512+tg128`, with ` b8` for 8
    /// sequences; or `load`, `compile`, `first token`.
    pub name: String,
    /// Its kind.
    pub kind: Kind,
    /// Number of tokens of the prompt.
    pub prompt: u32,
    /// Number of tokens that each sequence decodes.
    pub tokens: u32,
    /// Number of tokens in front of what is timed.
    pub depth: u32,
    /// Batch size: sequences at the same time.
    pub batch: u32,
}

/// The times of a test. Rates follow from the seconds and the test.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Time {
    /// The clock of all these times: `wall` or `device`. A column never mixes both.
    pub clock: Clock,
    /// Seconds of each repetition, in the order of time. The warm-up runs are not among them.
    pub samples: Vec<f64>,
    /// Statistics of the samples, if there is at least one.
    pub seconds: Option<Summary>,
    /// Tokens per second of the repetitions, of all sequences together. `None` for a test without a rate of tokens.
    pub tokens_per_second: Option<Summary>,
    /// Seconds from each token to the next, as they arrive on the host, of all repetitions in order. Empty except for
    /// decode.
    pub token_samples: Vec<f64>,
    /// Percentiles of `token_samples`.
    pub token_seconds: Option<Percentiles>,
    /// `model.bytes_per_token` divided by the median time of a token, in bytes per second. Only for decode.
    pub bytes_per_second: Option<f64>,
    /// `bytes_per_second` as a share of the device's memory bandwidth.
    pub bandwidth_share: Option<f64>,
    /// Share of the median time in which the device computes, from its timestamps.
    pub busy_share: Option<f64>,
}

/// The clock of a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Clock {
    /// The clock of the host: what a user waits.
    Wall,
    /// The device's timestamps.
    Device,
}

/// Statistics of some numbers.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Arithmetic mean.
    pub mean: f64,
    /// Standard deviation of the sample (n - 1). 0 for a single number.
    pub sd: f64,
    /// The median: the middle number, or the mean of the two in the middle.
    pub median: f64,
    /// Lower end of the bootstrap interval of the median, 95 %.
    pub low: f64,
    /// Upper end of that interval.
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
    /// The part of the model: `embedding`, a kind of block (`attention`, `mamba2`, `deltanet`, `ffn`), `head` or
    /// `pick`.
    pub part: String,
    /// The kernel.
    pub kernel: String,
    /// The operator with its numbers.
    pub op: String,
    /// Number of its dispatches in a step.
    pub dispatches: u32,
    /// Seconds of all these dispatches together, on the device.
    pub seconds: f64,
    /// Bytes that all these dispatches move at least.
    pub bytes: u64,
}
