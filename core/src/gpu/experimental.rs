//! The only place with `unsafe`, which a test checks: wgpu offers cooperative matrices only as an experimental
//! feature.
#![allow(unsafe_code)]

/// Permission to use a device's cooperative matrices.
pub(super) fn allowed() -> wgpu::ExperimentalFeatures {
    // SAFETY: this call does nothing by itself. It states that the caller accepts possible faults in unfinished parts
    // of wgpu. We request one such part, cooperative matrices. The kernel that uses them
    // (`shaders/lib/matmul_coop.wgsl`) is our own. It reads and writes them only in workgroup memory, within its
    // bounds. The suites and `doctor` compare it with its CPU twin, and `--deny coopmat` turns it off.
    unsafe { wgpu::ExperimentalFeatures::enabled() }
}
