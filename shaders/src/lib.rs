//! The WGSL text of nemoflash: one constant per file, no dependencies.
//!
//! A kernel is made by joining files end to end: one or more of `lib/`, then the kernel's own file, which
//! has one entry point named like the file. Numbers come as `const` lines in front.
#![forbid(unsafe_code)]

macro_rules! text {
    ($($name:ident = $file:literal;)*) => {
        $(#[doc = concat!("`", $file, "`")] pub const $name: &str = include_str!(concat!("../", $file));)*
        /// Every file of the crate: (path, text).
        pub const FILES: &[(&str, &str)] = &[$(($file, $name)),*];
    };
}

text! {
    REDUCE = "lib/reduce.wgsl";
    REDUCE_SUBGROUP = "lib/reduce_subgroup.wgsl";
    BATCH = "lib/batch.wgsl";
    BF16 = "lib/bf16.wgsl";
    GRID = "lib/grid.wgsl";
    TILE = "lib/tile.wgsl";
    EMBED = "embed.wgsl";
    GATHER_LAST = "gather_last.wgsl";
    PICK = "pick.wgsl";
    RMS_NORM = "rms_norm.wgsl";
    ROW_NORMS = "row_norms.wgsl";
}
