//! All suites of the command: one binary, so that one is linked. `tests/tests/tidy.rs` finds a file that is
//! missing here.
#![forbid(unsafe_code)]

mod common;
mod mock;

mod bench;
mod cli;
mod compare;
mod docs;
mod doctor;
mod fuzz_corpus;
mod hostile;
mod hub;
mod hub_faults;
mod hub_settings;
mod manual;
mod outfiles;
mod perplexity;
mod profile;
mod prompts;
mod quantize;
mod terminal;
