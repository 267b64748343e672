//! The latency look-up table: what a block of each kind adds to a decode step, for each hidden size, batch size and
//! number of tokens in front. The latency of any stack is then a sum. `benches/operators.schema.json` describes the
//! same format as JSON Schema.
//!
//! An entry is a difference: the time of a stack with some more blocks of one kind, minus the time of the same stack
//! without them, in runs that take turns. So it contains everything that a block costs inside a model, launching and
//! waiting included, and no timestamp stands between two blocks.

mod stacks;

pub use stacks::{Shape, Stack, held_out, letters, parse_blocks};

use crate::report::{Clock, Device, Gate, Software, Summary};
use nemoflash::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The version of the format. A file of another version is refused by name.
pub const SCHEMA: &str = "nemoflash-operators/1";
/// A table is good if each of its predictions of held-out stacks is off by at most this share of the measured time.
pub const LIMIT: f64 = 0.1;

/// What an entry measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    /// Attention over all of the text; `a` in a stack's letters.
    Attention,
    /// Attention over the last [`Shape::window`] tokens; `w`.
    Window,
    /// Mamba2; `m2`.
    Mamba2,
    /// DeltaNet; `d`.
    DeltaNet,
    /// The feed-forward network; `f`.
    Ffn,
    /// Everything of a step except its blocks: embedding, final norm, head, choice of a token, submission, and the
    /// host's wait if there is one (with several sequences at a time, the host waits for each step).
    Ends,
}

impl Part {
    /// The parts of which a stack can have any number.
    pub const BLOCKS: [Part; 5] = [Part::Attention, Part::Window, Part::Mamba2, Part::DeltaNet, Part::Ffn];

    /// As in a file.
    pub fn name(self) -> &'static str {
        match self {
            Part::Attention => "attention",
            Part::Window => "window",
            Part::Mamba2 => "mamba2",
            Part::DeltaNet => "deltanet",
            Part::Ffn => "ffn",
            Part::Ends => "ends",
        }
    }

    /// Whether its work depends on the number of tokens in front.
    pub fn looks_back(self) -> bool {
        matches!(self, Part::Attention | Part::Window)
    }
}

/// A look-up table. All times are seconds of one decode step, in which each sequence gets one token.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Table {
    /// [`SCHEMA`].
    pub schema: String,
    /// The time of the measurement: RFC 3339, UTC.
    pub date: String,
    /// The program.
    pub software: Software,
    /// The device.
    pub device: Device,
    /// Whether the device gives the right tokens.
    pub gate: Gate,
    /// How matrices are stored: `bf16`, `q8` or `q4`.
    pub weights: String,
    /// How keys and values are stored: `f16` or `f32`.
    pub kv: String,
    /// The clock of all times.
    pub clock: Clock,
    /// Number of tokens that each sequence of the engine had room for. Attention divides its work by it.
    pub context: u32,
    /// Tokens decoded in a run.
    pub tokens: u32,
    /// Runs of each stack, of which medians are taken.
    pub runs: u32,
    /// The proportions of the blocks relative to their hidden size.
    pub shape: Shape,
    /// The time of each part.
    pub entries: Vec<Entry>,
    /// The stacks that entries were computed from.
    pub stacks: Vec<Measured>,
    /// Stacks that no entry was computed from.
    pub held_out: Vec<HeldOut>,
    /// How well they were predicted; nothing if there are none.
    pub accuracy: Option<Accuracy>,
    /// Warnings about what makes the numbers less certain, each with what to do about it.
    pub warnings: Vec<String>,
}

/// The time of a part in a step. The key is (part, hidden, batch, depth).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Which.
    pub part: Part,
    /// Width of the residual stream.
    pub hidden: u32,
    /// Sequences at a time.
    pub batch: u32,
    /// Tokens in front of the decoded ones; none where they change nothing.
    pub depth: Option<u32>,
    /// Dimensions by name: `heads`, `kv_heads`, `head_dim`, `window`, `d_inner`, `d_state`, `width`, `vocab`.
    pub dims: BTreeMap<String, u32>,
    /// Weights of it, in bytes.
    pub bytes: u64,
    /// How many more blocks one of the two stacks had; 0 for [`Part::Ends`], which is the time of a stack without
    /// blocks.
    pub blocks: u32,
    /// Seconds: the median of the runs' differences; none if it was not measured.
    pub seconds: Option<f64>,
    /// Bootstrap interval of that median, 95 %.
    pub low: Option<f64>,
    /// See `low`.
    pub high: Option<f64>,
    /// Why it was not measured.
    pub error: Option<String>,
}

/// A stack that was measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// Width of the residual stream.
    pub hidden: u32,
    /// Its blocks, in letters: `d f m2 f`.
    pub blocks: String,
    /// Sequences at a time.
    pub batch: u32,
    /// Tokens in front of the decoded ones.
    pub depth: u32,
    /// Seconds of a step, in each run.
    pub samples: Vec<f64>,
}

/// A stack that was predicted and then measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HeldOut {
    /// What it is.
    pub name: String,
    /// See [`Measured`].
    pub hidden: u32,
    /// See [`Measured`].
    pub blocks: String,
    /// See [`Measured`].
    pub batch: u32,
    /// See [`Measured`].
    pub depth: u32,
    /// Seconds of a step by the table.
    pub predicted: Option<f64>,
    /// Seconds of a step.
    pub measured: Option<Summary>,
    /// `predicted / measured - 1`, by the median.
    pub error: Option<f64>,
    /// Why there is no error.
    pub why: Option<String>,
}

/// How well held-out stacks were predicted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Accuracy {
    /// [`LIMIT`].
    pub limit: f64,
    /// Predictions.
    pub count: u32,
    /// Mean of the errors' sizes.
    pub mean: f64,
    /// The largest.
    pub max: f64,
    /// Predictions that are off by more than the limit.
    pub beyond: u32,
}

impl Accuracy {
    /// Of all that were predicted and measured; nothing of none.
    pub fn of(held_out: &[HeldOut]) -> Option<Accuracy> {
        let errors: Vec<f64> = held_out.iter().filter_map(|stack| stack.error).map(f64::abs).collect();
        let max = errors.iter().copied().reduce(f64::max)?;
        let mean = errors.iter().sum::<f64>() / errors.len() as f64;
        let beyond = errors.iter().filter(|error| **error > LIMIT).count() as u32;
        Some(Accuracy { limit: LIMIT, count: errors.len() as u32, mean, max, beyond })
    }
}

/// The time of one of `blocks` additional blocks in each run, from the seconds of both stacks in runs that took
/// turns.
pub fn differences(without: &[f64], with: &[f64], blocks: u32) -> Vec<f64> {
    without.iter().zip(with).map(|(without, with)| (with - without) / f64::from(blocks.max(1))).collect()
}

impl Table {
    /// Reads a table.
    ///
    /// # Errors
    /// [`Error::Parameter`] if it is not one of this version.
    pub fn parse(json: &[u8]) -> Result<Table> {
        let bad = |why: String| Error::Parameter { name: "table", why };
        let value: serde_json::Value =
            serde_json::from_slice(json).map_err(|error| bad(format!("not JSON: {error}")))?;
        match value.get("schema").and_then(|schema| schema.as_str()) {
            Some(SCHEMA) => {}
            Some(other) => return Err(bad(format!("its schema is {other:.40}, and {SCHEMA} is read here"))),
            None => return Err(bad(format!("not a table of `nemoflash profile operators`: no schema {SCHEMA}"))),
        }
        serde_json::from_value(value).map_err(|error| bad(format!("{SCHEMA}, but {error}")))
    }

    /// Predicted seconds of a decode step of a stack whose blocks have the table's [`Shape`]: the entry of the ends,
    /// and one entry for each block. Hidden size and batch size must be measured ones. Between two measured depths,
    /// attention's seconds are interpolated linearly; for a window, only as far as the window reaches.
    ///
    /// # Errors
    /// [`Error::Parameter`] names the entry that is missing.
    pub fn predict(&self, stack: &Stack, batch: u32, depth: u32) -> Result<f64> {
        let parts = stack.blocks.iter().chain([&Part::Ends]);
        parts.map(|&part| self.part(part, stack.hidden, batch, depth)).sum()
    }

    /// Seconds of one part.
    ///
    /// # Errors
    /// As [`Table::predict`].
    pub fn part(&self, part: Part, hidden: u32, batch: u32, depth: u32) -> Result<f64> {
        let missing = |what: String| Error::Parameter {
            name: "stack",
            why: format!("the table has no {} of hidden size {hidden} for {batch} at a time{what}", part.name()),
        };
        let of_part = |entry: &&Entry| (entry.part, entry.hidden, entry.batch) == (part, hidden, batch);
        let mut points = vec![];
        for entry in self.entries.iter().filter(of_part) {
            let Some(seconds) = entry.seconds else {
                let why = entry.error.clone().unwrap_or_default();
                return Err(missing(format!(": {why}")));
            };
            match entry.depth {
                None => return Ok(seconds),
                Some(at) => points.push((at, seconds)),
            }
        }
        points.sort_by_key(|(at, _)| *at);
        let reach = if part == Part::Window { self.shape.window } else { u32::MAX };
        let after = points.iter().position(|(at, _)| *at >= depth);
        match after {
            Some(after) if points[after].0 == depth || after > 0 => {
                let (far, seconds) = points[after];
                let (near, before) = points[after.saturating_sub(1)];
                let [far, near, depth] = [far, near, depth].map(|at| f64::from(at.min(reach)));
                let share = if far > near { (depth - near) / (far - near) } else { 1.0 };
                Ok(before + share * (seconds - before))
            }
            _ => {
                let depths: Vec<String> = points.iter().map(|(at, _)| at.to_string()).collect();
                Err(missing(format!(" at depth {depth} (it has {})", depths.join(", "))))
            }
        }
    }
}

#[cfg(test)]
mod tests;
