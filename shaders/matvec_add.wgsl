// y += W·x: an output projection with its residual.
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
@group(0) @binding(3) var<storage, read_write> y: array<f32>; // [rows, stride]

@compute @workgroup_size(WG)
fn matvec_add(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let first = group_index(group, groups) * OUTS;
    var sum: array<vec4<f32>, ROWS>;
    product(lines(first, n.outs), local, &sum);
    let out = first + local;
    if local >= OUTS || out >= n.outs {
        return;
    }
    for (var r = 0u; r < ROWS; r++) {
        y[r * n.stride + n.first + out] += sum[r][local];
    }
}
