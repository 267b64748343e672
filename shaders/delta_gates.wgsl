// DeltaNet before the scan (spec 3.5 steps 4 and 5): makes q and k of each head unit vectors, and computes beta =
// sigmoid(raw). One workgroup per (row, head).
struct Numbers {
    rows: u32,
    heads: u32,
    head_dim: u32,
    in_stride: u32,
}

@group(0) @binding(0) var<uniform> n: Numbers;
@group(0) @binding(1) var<storage, read> p: array<f32>; // [rows, in_stride]: q | k | v | raw beta
@group(0) @binding(2) var<storage, read_write> qkv: array<vec4<f32>>; // [rows, 3, heads, head_dim / 4]
@group(0) @binding(3) var<storage, read_write> beta: array<f32>; // [rows, heads]

@compute @workgroup_size(WG)
fn delta_gates(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let index = group_index(group, groups);
    if index >= n.rows * n.heads {
        return;
    }
    let row = index / n.heads;
    let head = index % n.heads;
    let quads = n.head_dim / 4u;
    let q = (row * 3u * n.heads + head) * quads;
    let k = q + n.heads * quads;
    var squares = vec4<f32>();
    for (var i = local; i < quads; i += WG) {
        squares += vec4<f32>(dot(qkv[q + i], qkv[q + i]), dot(qkv[k + i], qkv[k + i]), 0.0, 0.0);
    }
    let norm = sqrt(sum4(squares, local) + 1e-6);
    for (var i = local; i < quads; i += WG) {
        qkv[q + i] /= norm.x;
        qkv[k + i] /= norm.y;
    }
    if local == 0u {
        // The bound keeps exp finite. Below -80 the sigmoid is practically zero.
        let raw = max(p[row * n.in_stride + 3u * n.heads * n.head_dim + head], -80.0);
        beta[index] = 1.0 / (1.0 + exp(-raw));
    }
}
