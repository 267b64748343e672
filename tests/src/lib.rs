//! Harness of the test suites: every device of the machine, the golden models, and the runs of operators against their
//! CPU twins.
//!
//! `NEMOFLASH_OPS=name,name` restricts the operator suite to these kernels, `NEMOFLASH_DEVICES=text` to the
//! devices whose label contains the text; both say so loudly.
#![forbid(unsafe_code)]

mod close;
mod devices;
pub mod fuzz;
mod job;
mod models;
mod reflect;
pub mod scene;
mod shader;
mod spoil;
mod synthetic;
mod tensors;

pub use close::close;
pub use devices::{Device, Mode, Target, loud, not_run, targets, targets_in};
pub use job::{Job, check_case};
pub use models::{
    Expected, GOLDEN, checkpoint, expected, load, load_chunked, load_files, load_lens, load_options, model_dir,
};
pub use nemoflash::check::Random;
pub use reflect::{parse, reflect};
pub use shader::{Shader, kinds, shaders};
pub use spoil::spoil;
pub use synthetic::load_synthetic;
pub use tensors::{Tensors, file, tensors};

/// The Rust of README.md: a documentation test compiles it. It does not run, since it reads files of the root.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
