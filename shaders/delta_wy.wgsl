// First half of the chunked delta rule (spec 3.5, WY form), for all chunks at once. One workgroup per (tile, head). From K,
// V and Q of the tile's rows it computes A = strictly lower (diag(beta) K Kᵀ), T = (I + A)⁻¹ diag(beta), W = T K, U = T V,
// and the causal scores lower (Q Kᵀ). The rest, in `delta_chunked`, is linear in the state. See lib/wy.wgsl and
// lib/wy_coop.wgsl.
//
// CHUNK is 32. Then all matrices of a chunk fit into workgroup memory, and the work that grows with the chunk (4 CHUNK
// head_dim per token and head) is a third of the work that does not (3 head_dim²).
struct Numbers {
    heads: u32,
    head_dim: u32,
}

@group(0) @binding(0) var<uniform> n: Numbers;
@group(0) @binding(1) var<storage, read> batch: Batch;
@group(0) @binding(2) var<storage, read> qkv: array<vec4<f32>>; // [rows, 3, heads, head_dim / 4]
@group(0) @binding(3) var<storage, read> beta: array<f32>; // [rows, heads]
@group(0) @binding(4) var<storage, read_write> w: array<vec4<f32>>; // [rows, heads, head_dim / 4]
@group(0) @binding(5) var<storage, read_write> u: array<vec4<f32>>; // [rows, heads, head_dim / 4]
@group(0) @binding(6) var<storage, read_write> attn: array<vec4<f32>>; // [rows, heads, CHUNK / 4]

const QUADS: u32 = CHUNK / 4u; // four rows or columns of the tile

// `values` in columns 4 * quad + i below `end`, else 0.
fn below(values: vec4<f32>, quad: u32, end: u32) -> vec4<f32> {
    return select(vec4<f32>(), values, vec4<u32>(4u * quad) + vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(end));
}

// Computes column c of T by forward substitution, four rows at a time: T[r] = beta e_c[r] - sum A[r] T. A [row][column / 4]
// begins at A_AT of `a`. `own` is beta of row c, and `used` the number of quads of rows that exist.
fn solve(c: u32, own: f32, used: u32) {
    for (var r = 0u; r < used; r++) {
        let at = A_AT + 4u * r * QUADS;
        var x = select(vec4<f32>(), vec4<f32>(own), vec4<u32>(4u * r) + vec4<u32>(0u, 1u, 2u, 3u) == vec4<u32>(c));
        for (var y = 0u; y < r; y++) {
            let done = get_t(c, y);
            x -= vec4<f32>(
                dot(a[at + y], done),
                dot(a[at + QUADS + y], done),
                dot(a[at + 2u * QUADS + y], done),
                dot(a[at + 3u * QUADS + y], done),
            );
        }
        let row1 = a[at + QUADS + r];
        let row2 = a[at + 2u * QUADS + r];
        let row3 = a[at + 3u * QUADS + r];
        x.y -= row1.x * x.x;
        x.z -= row2.x * x.x + row2.y * x.y;
        x.w -= row3.x * x.x + row3.y * x.y + row3.z * x.z;
        set_t(c, r, x);
    }
}

@compute @workgroup_size(WG)
fn delta_wy(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    wy(group_index(group, groups), local);
}
