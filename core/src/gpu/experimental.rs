//! The one place with `unsafe` (a test holds it): cooperative matrices stand behind wgpu's word for what is experimental.
#![allow(unsafe_code)]

/// Leave to use a device's cooperative matrices.
pub(super) fn allowed() -> wgpu::ExperimentalFeatures {
    // SAFETY: nothing is done here. The word says that its bearer knows of possible faults in wgpu's unfinished parts. One
    // such part is asked for, cooperative matrices. The kernel that uses them (`shaders/lib/matmul_coop.wgsl`) is our own,
    // reads and writes them in workgroup memory alone, within its bounds, and is held against its CPU twin by the suites
    // and `doctor`; `--deny coopmat` does without.
    unsafe { wgpu::ExperimentalFeatures::enabled() }
}
