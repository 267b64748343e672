// y = silu(G·h) ⊙ (U·h), h = RMSNorm(x): an FFN's first half (spec 3.6). `w` holds `outs` lines of G, then
// as many of U; a workgroup takes OUTS / 2 of each.
struct Numbers {
    rows: u32,
    cols: u32,
    outs: u32,
    first: u32,
    stride: u32,
    eps: f32,
    lines: u32,
    format: u32,
}

@group(0) @binding(0) var<uniform> n: Numbers;
@group(0) @binding(1) var<storage, read> w: array<vec4<u32>>; // [lines, cols], see lib/weights_*.wgsl
@group(0) @binding(2) var<storage, read> x: array<vec4<f32>>; // [rows, cols]
@group(0) @binding(3) var<storage, read> scale: array<vec4<f32>>; // [cols], the norm's weight
@group(0) @binding(4) var<storage, read_write> y: array<f32>; // [rows, stride]

// Gate and up, gate and up.
fn gate_lines(first: u32) -> Lines {
    let a = min(first, n.outs - 1u);
    let b = min(first + 1u, n.outs - 1u);
    return Lines(a, a + n.outs, b, b + n.outs);
}

@compute @workgroup_size(WG)
fn matvec_gate(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let first = group_index(group, groups) * (OUTS / 2u);
    var sum: array<vec4<f32>, ROWS>;
    product(gate_lines(first), local, &sum);
    let out = first + local;
    if local >= (OUTS / 2u) || out >= n.outs {
        return;
    }
    for (var r = 0u; r < ROWS; r++) {
        let g = sum[r][2u * local];
        let up = sum[r][2u * local + 1u];
        y[r * n.stride + n.first + out] = up * g / (1.0 + exp(-g));
    }
}
