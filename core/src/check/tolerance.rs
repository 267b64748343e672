//! The table of tolerances: how far the results of a kernel may be from those of its CPU twin.

use crate::buf::Elem;

/// The largest allowed RMS ratio between the results of a kernel and of its CPU twin. Twins add in f64, and kernels in
/// f32. The ratios in the comments were measured on lavapipe (subgroups of 8) and SwiftShader (subgroups of 4), with
/// and without subgroups. `coop` says whether the kernel multiplies with cooperative matrices
/// ([`kernel::coop`](crate::kernel::coop)).
pub fn tolerance(kernel: &str, elem: Elem, coop: bool) -> f64 {
    match (elem, kernel) {
        // Both factors are rounded to f16, each by at most 2⁻¹¹ of itself. So a sum of products is off by at most 2⁻¹⁰
        // of the sum of their absolute values, and by less on average: 4.1e-4 in an emulation of all examples
        // (`ops/tiles.rs`).
        (Elem::F32, "matmul" | "matmul_add" | "matmul_logits") if coop => 6e-4,
        // Queries and weights of the softmax are rounded to f16: 3.6e-4 (NVIDIA H200).
        (Elem::F32, "attention") if coop => 6e-4,
        // All factors are rounded to f16, and so are W, Q, K and the scores: at most 5.0e-4 (delta_local), 4.1e-4 (delta_carry),
        // 1.7e-4 (ssd_local) and 2.6e-4 (ssd_carry) (NVIDIA H200).
        (Elem::F32 | Elem::F16, "delta_local") if coop => 1e-3,
        (Elem::F32, "delta_carry" | "ssd_local" | "ssd_carry") if coop => 1e-3,
        // As in f32, and then rounded to f16.
        (Elem::F16, "attention") if coop => 8e-4,
        // The product of two sums of up to 2048 terms, or the square of one: 2.2e-6.
        (Elem::F32, "matvec_gate" | "matvec_relu2") => 1e-5,
        // All other kernels: at most 2.6e-6 (matvec_norm_add), then 1.3e-6 (attention).
        (Elem::F32, _) => 3e-6,
        // One unit in the last place, where the f32 numbers before rounding differ in their last bits. No such case was
        // seen.
        (Elem::F16, _) => 1e-4,
        (Elem::U32 | Elem::Weights, _) => 0.0,
    }
}
