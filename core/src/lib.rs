//! nemoflash: Nemotron-Flash hybrid language models on any GPU through WebGPU.
#![forbid(unsafe_code)]

mod arena;
pub mod batch;
pub mod blocks;
mod buf;
mod caps;
pub mod checkpoint;
pub mod config;
mod cpu;
mod engine;
mod error;
mod exec;
mod explain;
mod gpu;
mod inventory;
pub mod kernel;
mod loader;
mod matrix;
mod model;
pub mod op;
pub mod ops;
pub mod plan;
pub mod sampling;
mod scratch;
mod text;

pub use blocks::Scan;
pub use buf::{Buf, Elem};
pub use caps::{Caps, Deny};
pub use config::Config;
pub use cpu::Cpu;
pub use engine::{Engine, EngineOptions, Event, Kv, Piece, Snapshot};
pub use error::{Error, Result};
pub use exec::{Exec, Ticket};
pub use explain::{BUDGET, DeviceBytes, Explain, KernelUse, PartCost};
pub use gpu::{AdapterInfo, Gpu, GpuOptions};
pub use inventory::Expected;
pub use loader::{Loader, Progress, Want};
pub use model::Model;
pub use sampling::Sampling;
pub use text::{StopMatcher, TextStream, Tokenizer};
