//! All suites of operators, models and the repository itself: one binary, so that one is linked. `tests/tests/tidy.rs` finds a file that is
//! missing here.
#![forbid(unsafe_code)]

mod budget;
mod chat;
mod dawn;
mod delta;
mod dry_run;
mod embed;
mod fuzz_corpus;
mod golden;
mod loader;
mod nll;
mod ops;
mod package;
mod pick;
mod pick_blocks;
mod profile;
mod quant;
mod sequences;
mod shaders;
mod splits;
mod ssd;
mod tidy;
