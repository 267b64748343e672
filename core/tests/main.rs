//! All suites of the core: one binary, so that one is linked. `tests/tests/tidy.rs` finds a file that is
//! missing here.
#![forbid(unsafe_code)]

mod checkpoint;
mod config;
mod examples;
mod text;
