// RMSNorm: one workgroup per row.
struct Numbers {
    rows: u32,
    width: u32,
    eps: f32,
}

@group(0) @binding(0) var<uniform> n: Numbers;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>; // [rows, width / 4]
@group(0) @binding(2) var<storage, read> w: array<vec4<f32>>; // [width / 4]
@group(0) @binding(3) var<storage, read_write> y: array<Row4>; // [rows, width / 4], see lib/rows_*.wgsl

@compute @workgroup_size(WG)
fn rms_norm(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let row = group_index(group, groups);
    let inside = row < n.rows;
    let quads = n.width / 4u;
    let start = select(0u, row, inside) * quads;
    var squares = 0.0;
    for (var i = local; i < quads; i += WG) {
        let v = x[start + i];
        squares += dot(v, v);
    }
    let scale = 1.0 / sqrt(sum1(squares, local) / f32(n.width) + n.eps);
    if inside {
        for (var i = local; i < quads; i += WG) {
            y[start + i] = packed(x[start + i] * scale * w[i]);
        }
    }
}
