//! The small fairy-tale model `fables`, as the bytes of its files: a Nemotron-Flash of 6.7 million parameters with every
//! operator of the family. It is a crate of its own so that it is published once for each model and not for each version of
//! the code.
#![forbid(unsafe_code)]

/// The folder of these files, where the source of this crate was when it was compiled: for tests and examples.
pub const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fables");
/// config.json.
pub const CONFIG: &[u8] = include_bytes!("../fables/config.json");
/// tokenizer.json: byte-level BPE of 4,096 entries.
pub const TOKENIZER: &[u8] = include_bytes!("../fables/tokenizer.json");
/// model.safetensors: matrices in bf16; norms, `dt_bias`, `A_log` and `D` in f32.
pub const WEIGHTS: &[u8] = include_bytes!("../fables/model.safetensors");
/// 44 KB of fairy tales that no training step saw.
pub const HELD_OUT: &str = include_str!("../fables/held-out.txt");
