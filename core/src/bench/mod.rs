//! Times an engine: the same measurements natively and in a page, told in the same words ([`report`]).
//!
//! Whoever measures lends a [`Clock`](crate::Clock). A clock is read only when the device has finished what it was asked
//! for, and the first run is never counted.

mod describe;
mod golden;
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
pub use measure::{Measured, Settings, Turns, compile, measure, side_by_side, time};
pub use operators::operators;
pub use stats::warnings;
