// Mamba2's gated RMSNorm: gate first, then one norm over the whole width (spec 3.4 step 6). One workgroup per row.
struct Numbers {
    rows: u32,
    width: u32,
    z_stride: u32,
    z_offset: u32,
    eps: f32,
}

@group(0) @binding(0) var<uniform> n: Numbers;
@group(0) @binding(1) var<storage, read> y: array<vec4<f32>>; // [rows, width / 4]
@group(0) @binding(2) var<storage, read> p: array<f32>; // [rows, z_stride], z from z_offset on
@group(0) @binding(3) var<storage, read> w: array<vec4<f32>>; // [width / 4]
@group(0) @binding(4) var<storage, read_write> out: array<Row4>; // [rows, width / 4], see lib/rows_*.wgsl

// Four values of y behind their gate.
fn gated(at: u32, gate: u32) -> vec4<f32> {
    return y[at] * silu4(vec4<f32>(p[gate], p[gate + 1u], p[gate + 2u], p[gate + 3u]));
}

@compute @workgroup_size(WG)
fn gated_norm(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let row = group_index(group, groups);
    let inside = row < n.rows;
    let quads = n.width / 4u;
    let start = select(0u, row, inside) * quads;
    let gate = select(0u, row, inside) * n.z_stride + n.z_offset;
    var squares = 0.0;
    for (var i = local; i < quads; i += WG) {
        let g = gated(start + i, gate + 4u * i);
        squares += dot(g, g);
    }
    let scale = 1.0 / sqrt(sum1(squares, local) / f32(n.width) + n.eps);
    if inside {
        for (var i = local; i < quads; i += WG) {
            out[start + i] = packed(gated(start + i, gate + 4u * i) * scale * w[i]);
        }
    }
}
