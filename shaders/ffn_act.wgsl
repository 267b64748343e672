// The activation of an FFN for many rows (spec 3.6): silu(gate) ⊙ up, or relu(up)² if there is no gate.
struct Numbers {
    rows: u32,
    width: u32,
    gated: u32,
}

@group(0) @binding(0) var<uniform> n: Numbers;
@group(0) @binding(1) var<storage, read> h: array<vec4<f32>>; // [rows, gate: width | up: width] / 4, or [rows, width] / 4
@group(0) @binding(2) var<storage, read_write> y: array<Row4>; // [rows, width / 4], see lib/rows_*.wgsl

@compute @workgroup_size(WG)
fn ffn_act(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = group_index(group, groups) * WG + local;
    let quads = n.width / 4u;
    let row = i / quads;
    if row >= n.rows {
        return;
    }
    if n.gated == 1u {
        let g = h[i + row * quads];
        y[i] = packed(g / (1.0 + exp(-g)) * h[i + (row + 1u) * quads]);
    } else {
        let up = max(h[i], vec4<f32>());
        y[i] = packed(up * up);
    }
}
