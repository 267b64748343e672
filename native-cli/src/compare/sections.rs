//! The sections of the page: each turns the comparison into what one chart or table shows, or into nothing.

pub mod browser;
pub mod full;
pub mod latency;
pub mod memory;
pub mod parts;
pub mod speed;
