//! How far a kernel may be from its CPU twin: the one table of tolerances.

use nemoflash::Elem;

/// The largest allowed RMS ratio between a kernel's result and its twin's. Twins add in f64, kernels in f32.
pub fn tolerance(_kernel: &str, elem: Elem) -> f64 {
    match elem {
        // Measured: 1.1e-7 (rms_norm).
        Elem::F32 => 2e-6,
        // One unit in the last place where the last bits of the f32 before rounding differ.
        Elem::F16 => 1e-4,
        Elem::Bf16 => 1e-3,
        Elem::U32 => 0.0,
    }
}
