//! The only place with `unsafe`, which a test checks: wgpu offers cooperative matrices only as an experimental
//! feature.
#![allow(unsafe_code)]

/// Permission to use a device's cooperative matrices.
pub(super) fn allowed() -> wgpu::ExperimentalFeatures {
    // SAFETY: nothing is done here. The word says that its bearer knows of possible faults in wgpu's unfinished parts. One
    // such part is asked for, cooperative matrices. The kernel that uses them (`shaders/lib/matmul_coop.wgsl`) is our own,
    // reads and writes them in workgroup memory alone, within its bounds, and is held against its CPU twin by the suites
    // and `doctor`; `--deny coopmat` does without.
    unsafe { wgpu::ExperimentalFeatures::enabled() }
}
