// y = W·RMSNorm(x): a projection into a mixer.
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

// The i-th line of a workgroup; past the end the last one, which nobody stores.
fn line_of(first: u32, i: u32) -> u32 {
    return min(first + i, n.outs - 1u);
}

// Four weights of the norm.
fn norm_of(i: u32) -> vec4<f32> {
    return scale[i];
}

@compute @workgroup_size(WG)
fn matvec_norm(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let first = group_index(group, groups) * TEAMS * OUTS;
    product(first, local);
    for (var i = local; i < ROWS * TEAMS * OUTS; i += WG) {
        let row = i / (TEAMS * OUTS);
        let line = i % (TEAMS * OUTS);
        let out = first + line;
        if out >= n.outs {
            continue;
        }
        y[row * n.stride + n.first + out] = result(row, line);
    }
}
