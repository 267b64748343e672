//! What holds where neither the caller nor the model's files choose. The command, the npm package and the page take these
//! numbers from here, so that the same question gets the same kind of answer everywhere.

use crate::sampling::Sampling;

/// Tokens of prompt and answer together, if the model allows so many.
pub const CONTEXT: u32 = 4096;
/// Longest answer in tokens.
pub const MAX_TOKENS: u32 = 200;
/// Weights that share a scale and a bias where a matrix is quantised.
pub const GROUP_SIZE: u32 = 64;
/// How tokens are chosen. The seed is the caller's to draw: the core has no source of chance.
pub const SAMPLING: Sampling =
    Sampling { temperature: 0.8, top_k: 40, top_p: 1.0, min_p: 0.0, repetition_penalty: 1.0, seed: 0 };
