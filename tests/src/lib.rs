//! Harness of the test suites: every device of the machine, the golden models, and comparisons of operators with their CPU
//! twins.
//!
//! `NEMOFLASH_OPS=name,name` restricts the operator suite to these kernels. `NEMOFLASH_DEVICES=text` restricts suites to
//! devices whose label contains the text. A line on stderr says so.
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

/// The Rust code of README.md, which a documentation test compiles. It does not run, because it reads files of the root.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
