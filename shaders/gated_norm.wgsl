// Mamba2's gated RMSNorm: gate first, then one norm over the whole width (spec 3.4 step 6). One workgroup per row.
struct Numbers {
    rows: u32,
    width: u32,
    z_stride: u32,
    z_offset: u32,
    eps: f32,
}

@group(0) @binding(0) var<uniform> n: Numbers;
@group(0) @binding(1) var<storage, read> y: array<f32>; // [rows, width]
@group(0) @binding(2) var<storage, read> p: array<f32>; // [rows, z_stride], z from z_offset on
@group(0) @binding(3) var<storage, read> w: array<f32>; // [width]
@group(0) @binding(4) var<storage, read_write> out: array<f32>; // [rows, width]

@compute @workgroup_size(WG)
fn gated_norm(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let row = group_index(group, groups);
    let inside = row < n.rows;
    let start = select(0u, row, inside) * n.width;
    let gate = select(0u, row, inside) * n.z_stride + n.z_offset;
    var squares = 0.0;
    for (var i = local; i < n.width; i += WG) {
        let g = y[start + i] * silu(p[gate + i]);
        squares += g * g;
    }
    let scale = 1.0 / sqrt(sum1(squares, local) / f32(n.width) + n.eps);
    if inside {
        for (var i = local; i < n.width; i += WG) {
            out[start + i] = y[start + i] * silu(p[gate + i]) * scale * w[i];
        }
    }
}
