//! How far a kernel may be from its CPU twin: the one table of tolerances.

use crate::buf::Elem;
use crate::caps::Caps;

/// The largest allowed RMS ratio between a kernel's result and its twin's. Twins add in f64, kernels in f32.
/// Measured on lavapipe (subgroups of 8) and SwiftShader (subgroups of 4), with and without subgroups.
pub fn tolerance(kernel: &str, elem: Elem, caps: &Caps) -> f64 {
    match (elem, kernel) {
        // Both factors rounded to f16, each by up to 2⁻¹¹ of itself, so a sum of products by up to 2⁻¹⁰ of the sum of
        // their absolute values, and by less in the mean: 4.1e-4 in an emulation of all examples (`ops/matmul.rs`).
        (Elem::F32, "matmul" | "matmul_add" | "matmul_logits") if caps.coopmat => 6e-4,
        // The product or the square of two sums of up to 2048 terms: 2.2e-6.
        (Elem::F32, "matvec_gate" | "matvec_relu2") => 1e-5,
        // All others: at most 2.6e-6 (matvec_norm_add), then 1.2e-6 (ssd_serial).
        (Elem::F32, _) => 3e-6,
        // One unit in the last place, where the f32 before rounding differ in their last bits: none seen.
        (Elem::F16, _) => 1e-4,
        (Elem::U32 | Elem::Weights, _) => 0.0,
    }
}
