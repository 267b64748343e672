//! The results of `nemoflash profile depth-width`. `benches/depth-width.schema.json` describes the same as JSON Schema.

use super::law::Law;
use nemoflash_bench::lookup::Shape;
use nemoflash_bench::report::{Clock, Device, Gate, Software, Summary};
use serde::{Deserialize, Serialize};

/// The version of the format.
pub const SCHEMA: &str = "nemoflash-depth-width/1";

/// The results. All times are seconds of one decode step of one sequence.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DepthWidth {
    /// [`SCHEMA`].
    pub schema: String,
    /// When it was measured: RFC 3339, UTC.
    pub date: String,
    pub software: Software,
    pub device: Device,
    /// The result of the golden check.
    pub gate: Gate,
    /// How matrices are kept: `bf16`, `q8` or `q4`.
    pub weights: String,
    /// How keys and values are kept: `f16` or `f32`.
    pub kv: String,
    pub clock: Clock,
    /// Number of tokens in front of the decoded ones.
    pub tokens_before: u32,
    /// Number of tokens that a run decodes.
    pub tokens: u32,
    pub runs: u32,
    /// Blocks of one unit of depth, in letters.
    pub pattern: String,
    pub shape: Shape,
    pub stacks: Vec<Measured>,
    /// The law, if points were given.
    pub law: Option<Law>,
    /// The sweet spot of each budget.
    pub sweet_spots: Vec<SweetSpot>,
    pub warnings: Vec<String>,
}

/// A stack: one depth at one number of parameters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// Number of parameters that was asked for.
    pub wanted: u64,
    /// Number of parameters that the stack has.
    pub parameters: u64,
    /// How often the pattern is repeated.
    pub depth: u32,
    /// Hidden size.
    pub width: u32,
    /// Seconds of a step in each run.
    pub samples: Vec<f64>,
    pub seconds: Option<Summary>,
    /// Loss by the law.
    pub loss: Option<f64>,
    /// Why the stack was not measured.
    pub error: Option<String>,
}

/// The best stack within a latency budget.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SweetSpot {
    /// Seconds that a step may take.
    pub budget: f64,
    /// The criterion by which it was chosen.
    pub by: Choice,
    /// Its depth. Depth and width are none if no stack keeps within the budget.
    pub depth: Option<u32>,
    pub width: Option<u32>,
    /// Seconds of its step.
    pub seconds: Option<f64>,
    /// Loss by the law.
    pub loss: Option<f64>,
}

/// The criterion by which a stack is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Choice {
    /// The lowest loss by the law.
    Loss,
    /// The most parameters: without losses, only latency is known.
    Parameters,
}
