// What all matrix-vector kernels share: numbers, matrix, rows, and the loop over the outputs. A workgroup computes
// TEAMS * OUTS products with rows of the matrix (lib/product.wgsl). Each of its outputs needs PER_OUT of them. The
// kernel has `store`, which computes one output from them and puts it into y. Needs const PER_OUT and a *normed.wgsl.
struct Numbers {
    cols: u32,
    outs: u32,
    first: u32,
    stride: u32,
    eps: f32,
    lines: u32,
}

@group(0) @binding(0) var<uniform> n: Numbers;
@group(0) @binding(1) var<storage, read> w: array<vec4<u32>>; // [lines, cols], see lib/weights_*.wgsl
@group(0) @binding(2) var<storage, read> x: array<vec4<f32>>; // [rows, cols]

// The i-th matrix row of a workgroup whose first output is `first`. The rows of one output are `outs` apart. Beyond the
// last output it is the last one, whose result is then not stored.
fn line_of(first: u32, i: u32) -> u32 {
    return min(first + i / PER_OUT, n.outs - 1u) + i % PER_OUT * n.outs;
}

// The body of every matrix-vector kernel.
fn outputs(group: vec3<u32>, groups: vec3<u32>, local: u32) {
    const OUTPUTS = TEAMS * OUTS / PER_OUT;
    let first = group_index(group, groups) * OUTPUTS;
    product(first, local);
    for (var i = local; i < ROWS * OUTPUTS; i += WG) {
        let row = i / OUTPUTS;
        let line = PER_OUT * (i % OUTPUTS);
        // The sum in this order: as `n.first + first + ...`, one driver made the head 16 % slower (benches/NOTES.md).
        let out = first + i % OUTPUTS;
        if out < n.outs {
            store(row, line, n.first + out);
        }
    }
}
