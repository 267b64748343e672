//! nemoflash: Nemotron-Flash hybrid language models on any GPU through WebGPU.
#![forbid(unsafe_code)]

mod error;

pub use error::{Error, Result};
