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
fn line_of(first: u32, i: u32) -> u32 {
    return min(first + i / 2u, n.outs - 1u) + i % 2u * n.outs;
}

// Four weights of the norm.
fn norm_of(i: u32) -> vec4<f32> {
    return scale[i];
}

@compute @workgroup_size(WG)
fn matvec_gate(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    const PAIRS = TEAMS * OUTS / 2u;
    let first = group_index(group, groups) * PAIRS;
    product(first, local);
    for (var i = local; i < ROWS * PAIRS; i += WG) {
        let row = i / PAIRS;
        let pair = i % PAIRS;
        let out = first + pair;
        if out >= n.outs {
            continue;
        }
        let gate = result(row, 2u * pair);
        y[row * n.stride + n.first + out] = result(row, 2u * pair + 1u) * gate / (1.0 + exp(-gate));
    }
}
