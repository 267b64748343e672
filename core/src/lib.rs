//! nemoflash: Nemotron-Flash hybrid language models on any GPU through WebGPU.
#![forbid(unsafe_code)]

mod error;
mod text;

pub use error::{Error, Result};
pub use text::{StopMatcher, TextStream, Tokenizer};
