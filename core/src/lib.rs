//! nemoflash runs NVIDIA's Nemotron-Flash hybrid language models (arXiv 2511.18890) and dense Qwen3 models. It runs
//! them on any GPU through WebGPU (natively: Vulkan, Metal and DX12), and on the CPU where there is no GPU. The layers
//! of a Nemotron-Flash model are attention, Mamba2, DeltaNet and FFN blocks, and each sequence begins with meta tokens.
//!
//! This crate reads no files, opens no connections and starts no threads. It reads a clock only if the caller lends one
//! ([`EngineOptions::clock`]). Bytes come in through [`Loader::push`], and tokens come out of [`Engine`].
//!
//! # Example
//!
//! ```
//! use nemoflash::{ChatOptions, Exec, Generator};
//! use std::{fs::File, path::Path};
//!
//! async fn story(folder: &Path) -> nemoflash::Result<()> {
//!     // On a GPU: `Exec::Gpu(Box::new(Gpu::new(&GpuOptions::default()).await?))`.
//!     let mut model = Generator::open(Exec::cpu(), |name| File::open(folder.join(name))).await?;
//!     let options = ChatOptions { seed: 7, ..Default::default() };
//!     model.generate("Once upon a time", &options, |text| print!("{text}")).await?;
//!     Ok(())
//! }
//! # pollster::block_on(story(Path::new(nemoflash_fables::FOLDER)))?;
//! # Ok::<(), nemoflash::Error>(())
//! ```
//!
//! `core/examples/` has a story and a conversation. It also shows the levels below: a loader that the program feeds
//! with bytes, and an engine that runs several sequences.
//!
//! # Map
//!
//! - Conversations: [`Generator`] opens a model and continues texts. [`Chat`] is a conversation. [`ChatOptions`] are
//!   the settings of an answer, and [`defaults`] are their default values.
//! - Devices: [`Gpu`] and [`Exec`].
//! - Weights: [`Loader`], [`Loaded`] and [`Model`].
//! - Sequences: [`Engine`].
//! - Text: [`Tokenizer`], [`ChatTemplate`], [`TextStream`] and [`StopMatcher`].
//!
//! Every failure is an [`Error`], with a stable [`Error::code`].
//!
//! "Spec 3.4" on these pages means section 3.4 of the specification of the computation, which is the page [`spec`]. The
//! equations are beside the code that computes them. The modules of operators, kernels and plans are hidden here,
//! because they may change in any version. `cargo doc --document-hidden-items` (nightly) shows them.
#![deny(unsafe_code)]

mod arena;
mod buf;
mod caps;
mod chat;
pub mod checkpoint;
pub mod config;
mod cpu;
pub mod defaults;
mod dry;
mod engine;
mod error;
mod exec;
mod explain;
mod format;
mod gpu;
mod inventory;
mod json;
mod loaded;
mod loader;
mod matrix;
mod model;
mod names;
mod place;
mod rotary;
pub mod sampling;
mod scratch;
pub mod spec;
mod synthetic;
mod table;
mod text;
mod tied;

// The low levels. They are public for the test suites and benchmarks of this project, and may change in any version.
#[doc(hidden)]
pub mod batch;
#[doc(hidden)]
pub mod blocks;
#[doc(hidden)]
pub mod check;
#[doc(hidden)]
pub mod kernel;
#[doc(hidden)]
pub mod op;
#[doc(hidden)]
pub mod ops;
#[doc(hidden)]
pub mod plan;

pub use blocks::Scan;
pub use buf::{Buf, Elem};
pub use caps::{Caps, Deny};
pub use chat::{Answer, Chat, ChatEvent, ChatFormat, ChatOptions, Generator, ModelText, TextFiles};
pub use config::Config;
pub use cpu::{Cpu, Pause};
pub use dry::Dry;
pub use engine::{Clock, Dispatch, Engine, EngineOptions, Event, Kv, Piece, Snapshot, Transcript};
pub use error::{Error, Result};
pub use exec::{Exec, Ticket};
pub use explain::{BUDGET, DeviceBytes, Explain, KernelUse, PartCost};
pub use format::{Format, Quant, Scales};
pub use gpu::{AdapterInfo, Gpu, GpuOptions};
pub use loaded::Loaded;
pub use loader::{LoadOptions, Loader, Progress, Want};
pub use model::Model;
pub use plan::Part;
pub use sampling::Sampling;
pub use synthetic::{ARCHS, Synthetic, tokenizer_json};
pub use table::{Residual, Tensor};
pub use text::{
    ChatFiles, ChatTemplate, End, LocalTime, Message, Role, StopMatcher, TemplateOptions, TextStream, Tokenizer,
    USER_AGAIN, Until, Writer, instruct,
};
