//! Default values, for what neither the caller nor the model's files choose. The command, the npm package and the web
//! demo all use them, so that the same question gets the same kind of answer everywhere.

use crate::sampling::Sampling;

/// Tokens of prompt and answer together, if the model's longest context is not shorter.
pub const CONTEXT: u32 = 4096;
/// Longest answer in tokens.
pub const MAX_TOKENS: u32 = 200;
/// Weights that share a scale and a bias when a matrix is quantised.
pub const GROUP_SIZE: u32 = 64;
/// How tokens are chosen. The caller chooses the seed, because the core has no source of random numbers.
pub const SAMPLING: Sampling =
    Sampling { temperature: 0.8, top_k: 40, top_p: 1.0, min_p: 0.0, repetition_penalty: 1.0, seed: 0 };
