// Matrix times a few vectors: shared by every matvec kernel. A workgroup of WG threads computes the products
// of OUTS (2 or 4) lines of `w` with ROWS rows of `x`: every thread takes every WG-th eight columns, all
// weights are read once, then one reduction. product.wgsl and product_norm.wgsl hold the loop.
// Needs const WG, OUTS, ROWS.
struct Lines {
    a: u32,
    b: u32,
    c: u32,
    d: u32,
}

// OUTS consecutive lines from `first` on, clamped to `outs`: the caller does not store past it.
fn lines(first: u32, outs: u32) -> Lines {
    let last = outs - 1u;
    return Lines(min(first, last), min(first + 1u, last), min(first + 2u, last), min(first + 3u, last));
}

fn dot_eight(weights: vec4<u32>, a: vec4<f32>, b: vec4<f32>) -> f32 {
    let e = bf16_eight(weights);
    return dot(e.a, a) + dot(e.b, b);
}
