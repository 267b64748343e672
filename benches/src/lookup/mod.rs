//! The latency look-up table: the time that a block of each kind adds to a decode step, for each hidden size, batch
//! size and number of tokens in front. The latency of any stack of blocks is then a sum.
//! `benches/operators.schema.json` describes the same format as JSON Schema.
//!
//! An entry is a difference: the time of a stack with some more blocks of one kind, minus the time of the same stack
//! without them. The runs of both take turns. So an entry contains everything that a block costs inside a model,
//! including launching and waiting, and no timestamps between blocks add to it.

mod stacks;

pub use stacks::{Shape, Stack, held_out, letters, parse_blocks};

use crate::report::{Clock, Device, Gate, Software, Summary};
use nemoflash::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The version of the format. A file of another version is an error that names it.
pub const SCHEMA: &str = "nemoflash-operators/1";
/// The largest error of a good table: each prediction of a held-out stack is off by at most this share of the measured
/// time.
pub const LIMIT: f64 = 0.1;

/// The part of a step that an entry measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    /// Attention to all tokens; `a` in a stack's letters.
    Attention,
    /// Attention to the last [`Shape::window`] tokens; `w`.
    Window,
    /// Mamba2; `m2`.
    Mamba2,
    /// DeltaNet; `d`.
    DeltaNet,
    /// The feed-forward network; `f`.
    Ffn,
    /// Everything in a step except its blocks: embedding, final norm, head, choice of a token, submission, and the
    /// host's wait if there is one. (With several sequences at the same time, the host waits for each step.)
    Ends,
}

impl Part {
    /// The parts of which a stack can have any number.
    pub const BLOCKS: [Part; 5] = [Part::Attention, Part::Window, Part::Mamba2, Part::DeltaNet, Part::Ffn];

    /// Its name in a file.
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

    /// Whether its time depends on the number of tokens in front.
    pub fn looks_back(self) -> bool {
        matches!(self, Part::Attention | Part::Window)
    }
}

/// A look-up table. All times are seconds of one decode step, in which each sequence gets one token.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Table {
    /// [`SCHEMA`].
    pub schema: String,
    /// The date and time of the measurement: RFC 3339, UTC.
    pub date: String,
    /// The program that measured.
    pub software: Software,
    /// The device.
    pub device: Device,
    /// The result of the golden check on the device.
    pub gate: Gate,
    /// How matrices are stored: `bf16`, `q8` or `q4`.
    pub weights: String,
    /// How keys and values are stored: `f16` or `f32`.
    pub kv: String,
    /// The clock of all times.
    pub clock: Clock,
    /// Number of tokens that fit into each sequence of the engine. The splits of attention depend on it.
    pub context: u32,
    /// Tokens decoded in a run.
    pub tokens: u32,
    /// Number of runs of each stack. Entries are medians of them.
    pub runs: u32,
    /// The proportions of the blocks relative to their hidden size.
    pub shape: Shape,
    /// The time of each part.
    pub entries: Vec<Entry>,
    /// The stacks that entries were computed from.
    pub stacks: Vec<Measured>,
    /// Stacks that no entry was computed from.
    pub held_out: Vec<HeldOut>,
    /// How well the held-out stacks were predicted. `None` if there are none.
    pub accuracy: Option<Accuracy>,
    /// Warnings about what makes the numbers less certain, each with what to do about it.
    pub warnings: Vec<String>,
}

/// The time of a part in a step. The key is (part, hidden, batch, depth).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// The part.
    pub part: Part,
    /// Width of the residual stream.
    pub hidden: u32,
    /// Batch size: sequences at the same time.
    pub batch: u32,
    /// Tokens in front of the decoded ones. `None` for a part whose time does not depend on it.
    pub depth: Option<u32>,
    /// Dimensions by name: `heads`, `kv_heads`, `head_dim`, `window`, `d_inner`, `d_state`, `width`, `vocab`.
    pub dims: BTreeMap<String, u32>,
    /// Bytes of its weights.
    pub bytes: u64,
    /// How many more blocks one of the two stacks had. 0 for [`Part::Ends`], which is the time of a stack without
    /// blocks.
    pub blocks: u32,
    /// Seconds: the median of the runs' differences. `None` if it was not measured.
    pub seconds: Option<f64>,
    /// Lower end of the bootstrap interval of that median, 95 %.
    pub low: Option<f64>,
    /// Upper end of that interval.
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
    /// Batch size: sequences at the same time.
    pub batch: u32,
    /// Tokens in front of the decoded ones.
    pub depth: u32,
    /// Seconds of a step in each run.
    pub samples: Vec<f64>,
}

/// A stack that was predicted and then measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HeldOut {
    /// A name that says which stack it is.
    pub name: String,
    /// See [`Measured`].
    pub hidden: u32,
    /// See [`Measured`].
    pub blocks: String,
    /// See [`Measured`].
    pub batch: u32,
    /// See [`Measured`].
    pub depth: u32,
    /// Seconds of a step as the table predicts it.
    pub predicted: Option<f64>,
    /// Seconds of a step as measured.
    pub measured: Option<Summary>,
    /// `predicted / measured - 1`, with the median of `measured`.
    pub error: Option<f64>,
    /// Why there is no `error`.
    pub why: Option<String>,
}

/// How well held-out stacks were predicted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Accuracy {
    /// [`LIMIT`].
    pub limit: f64,
    /// Number of predictions.
    pub count: u32,
    /// Mean of the errors without their signs.
    pub mean: f64,
    /// The largest error, without its sign.
    pub max: f64,
    /// Number of predictions that are off by more than the limit.
    pub beyond: u32,
}

impl Accuracy {
    /// The accuracy over all stacks that were predicted and measured. `None` if there are none.
    pub fn of(held_out: &[HeldOut]) -> Option<Accuracy> {
        let errors: Vec<f64> = held_out.iter().filter_map(|stack| stack.error).map(f64::abs).collect();
        let max = errors.iter().copied().reduce(f64::max)?;
        let mean = errors.iter().sum::<f64>() / errors.len() as f64;
        let beyond = errors.iter().filter(|error| **error > LIMIT).count() as u32;
        Some(Accuracy { limit: LIMIT, count: errors.len() as u32, mean, max, beyond })
    }
}

/// The time of one additional block in each run. The stack `with` has `blocks` more blocks than the stack `without`,
/// and their runs took turns.
pub fn differences(without: &[f64], with: &[f64], blocks: u32) -> Vec<f64> {
    without.iter().zip(with).map(|(without, with)| (with - without) / f64::from(blocks.max(1))).collect()
}

impl Table {
    /// Reads a table.
    ///
    /// # Errors
    /// [`Error::Parameter`] if it is not a table of this version.
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

    /// Predicts the seconds of a decode step of a stack whose blocks have the table's [`Shape`]: the entry of the ends,
    /// plus one entry for each block. The table must have the hidden size and the batch size. Between two measured
    /// depths, the seconds of attention are interpolated linearly; with a window, only as far as the window reaches.
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
