//! The benchmark library: which tests there are, what is timed, the statistics, and the fields of a report
//! ([`report`]). The command and the web page both use it, so their numbers can be compared.
//!
//! Like the core, this library does no IO. The caller lends a clock ([`nemoflash::Clock`]). The clock is read only when
//! the device has finished its work, and the first run is never counted.
//!
//! - [`Lists`] makes the tests, [`measure`] and [`side_by_side`] run them, and [`operators`] tells where the time of a
//!   step goes.
//! - [`said`] and [`gate`] are the golden check, which comes before anything is timed.
//! - [`memory_bytes_per_second`] and [`buffer_bytes`] measure what a device can do at best.
//! - [`lookup`] is the latency look-up table of `nemoflash profile operators`.
//! - [`kernels`] times single operators, for `cargo bench`.
#![forbid(unsafe_code)]

mod describe;
mod golden;
pub mod kernels;
mod limits;
mod list;
pub mod lookup;
mod measure;
mod operators;
pub mod report;
mod stats;

pub use describe::WGPU;
pub use golden::{CONTEXT, GOLDEN, PROMPT, gate, said};
pub use limits::{buffer_bytes, memory_bytes_per_second};
pub use list::Lists;
pub use measure::{Go, Measured, Settings, Turns, compile, measure, side_by_side, time};
pub use operators::operators;
pub use stats::warnings;
