//! Harness of the test suites: every device of the machine, inputs, comparison, and the run of one operator
//! against its CPU twin.
//!
//! `NEMOFLASH_OPS=name,name` restricts the operator suite to these kernels, `NEMOFLASH_DEVICES=text` to the
//! devices whose label contains the text; both say so loudly.
#![forbid(unsafe_code)]

mod compare;
mod devices;
pub mod fuzz;
mod job;
mod models;
mod random;
mod reflect;
mod shader;
mod synthetic;
mod tensors;
mod tolerance;

pub use compare::{POISON, close, compare_words};
pub use devices::{Device, Mode, Target, loud, not_run, targets};
pub use job::{Job, check_case};
pub use models::{
    Expected, GOLDEN, checkpoint, expected, load, load_chunked, load_files, load_lens, load_options, model_dir,
};
pub use random::Random;
pub use reflect::{parse, reflect};
pub use shader::{Shader, kinds, shaders};
pub use synthetic::load_synthetic;
pub use tensors::{Tensors, file, tensors};
pub use tolerance::tolerance;
