//! The nemoflash command.
fn main() {}
