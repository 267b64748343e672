//! The WGSL text of nemoflash.
