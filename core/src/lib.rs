//! nemoflash: Nemotron-Flash hybrid language models on any GPU through WebGPU.
#![forbid(unsafe_code)]

pub mod batch;
mod buf;
mod caps;
pub mod checkpoint;
pub mod config;
mod cpu;
mod error;
mod exec;
mod gpu;
mod inventory;
pub mod kernel;
pub mod op;
pub mod ops;
pub mod plan;
pub mod sampling;

pub use buf::{Buf, Elem};
pub use caps::{Caps, Deny};
pub use config::Config;
pub use cpu::Cpu;
pub use error::{Error, Result};
pub use exec::{Exec, Ticket};
pub use gpu::{AdapterInfo, Gpu, GpuOptions};
<<<<<<< HEAD
pub use inventory::Expected;
=======
pub use sampling::Sampling;
>>>>>>> pick
