// Joins the splits of attention_step: a weighted mean under the common maximum. One thread per four values.
struct Numbers {
    rows: u32,
    heads: u32,
    head_dim: u32,
    splits: u32,
}

@group(0) @binding(0) var<uniform> n: Numbers;
@group(0) @binding(1) var<storage, read> parts: array<vec4<f32>>; // [rows, heads, splits, head_dim]
@group(0) @binding(2) var<storage, read> weights: array<vec2<f32>>; // [rows, heads, splits]: maximum, sum
@group(0) @binding(3) var<storage, read_write> y: array<vec4<f32>>; // [rows, heads, head_dim]

@compute @workgroup_size(WG)
fn attention_join(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = group_index(group, groups) * WG + local;
    let quads = n.head_dim / 4u;
    let head = i / quads; // of all rows
    if head >= n.rows * n.heads {
        return;
    }
    var top = -3.0e38;
    for (var s = 0u; s < n.splits; s++) {
        let w = weights[head * n.splits + s];
        if w.y > 0.0 {
            top = max(top, w.x);
        }
    }
    var sum = vec4<f32>();
    var total = 0.0;
    for (var s = 0u; s < n.splits; s++) {
        let w = weights[head * n.splits + s];
        let scale = exp(min(w.x - top, 0.0));
        sum += parts[(head * n.splits + s) * quads + i % quads] * scale;
        total += w.y * scale;
    }
    y[i] = sum / total;
}
