// First half of the chunked delta rule (spec 3.5, WY form), for all chunks at once. One workgroup per (tile, head). From K,
// V and Q of the tile's rows it computes A = strictly lower (diag(beta) K Kᵀ), T = (I + A)⁻¹ diag(beta), W = T K, U = T V,
// and the causal scores lower (Q Kᵀ). The rest, in `delta_chunked`, is linear in the state. `delta_local`
// computes the same with cooperative matrices.
//
// CHUNK is 32. Then K Kᵀ, T and the staged slices of K and Q fit into 16 KiB of workgroup memory, and the work that grows with the chunk (4 CHUNK
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

const SLICE: u32 = 4u; // vec4s of a row that are staged at a time
// One more than a multiple, so that eight neighbours read eight different banks.
const STRIDE: u32 = SLICE + 1u;
const STEP: u32 = QUADS * STRIDE; // from a row of the tile to the next
const A_AT: u32 = 0u;
// One more than is used, so that neighbouring columns are in different banks.
const T_STRIDE: u32 = QUADS + 1u;

// Row r of the tile is at (r % 4) * QUADS + r / 4, so that neighbouring threads read neighbouring rows.
var<workgroup> k_slice: array<vec4<f32>, CHUNK * STRIDE>;
var<workgroup> q_slice: array<vec4<f32>, CHUNK * STRIDE>;
var<workgroup> a: array<vec4<f32>, CHUNK * QUADS>; // A[row][column / 4]
var<workgroup> t: array<vec4<f32>, CHUNK * T_STRIDE>; // T[column][row / 4]

fn get_t(column: u32, quad: u32) -> vec4<f32> {
    return t[column * T_STRIDE + quad];
}

fn set_t(column: u32, quad: u32, value: vec4<f32>) {
    t[column * T_STRIDE + quad] = value;
}

// The products of one row with the four rows j, j + QUADS, ... of K.
fn products(x: vec4<f32>, j: u32) -> vec4<f32> {
    return vec4<f32>(
        dot(x, k_slice[j]),
        dot(x, k_slice[j + STEP]),
        dot(x, k_slice[j + 2u * STEP]),
        dot(x, k_slice[j + 3u * STEP]),
    );
}

fn wy(index: u32, local: u32) {
    let quads = n.head_dim / 4u;
    let head = index % n.heads;
    let tile = tile_of(index / n.heads, CHUNK);
    if tile.rows == 0u {
        return;
    }
    let used = (tile.rows + 3u) / 4u; // quads of rows that exist

    // G = K Kᵀ and P = Q Kᵀ. A thread has four rows (4 i ..) by four columns (4 j ..) of both.
    let i = local / QUADS;
    let j = local % QUADS;
    var g = array<vec4<f32>, 4>();
    var p = array<vec4<f32>, 4>();
    for (var slice = 0u; slice < quads; slice += SLICE) {
        workgroupBarrier();
        for (var at = local; at < CHUNK * SLICE; at += WG) {
            // Rows beyond the tile repeat its last row. Their results are never written.
            let r = at / SLICE;
            let quad = slice + at % SLICE;
            let to = ((r % 4u) * QUADS + r / 4u) * STRIDE + at % SLICE;
            let source = ((tile.first + min(r, tile.rows - 1u)) * 3u * n.heads + head) * quads + min(quad, quads - 1u);
            k_slice[to] = select(vec4<f32>(), qkv[source + n.heads * quads], quad < quads);
            q_slice[to] = select(vec4<f32>(), qkv[source], quad < quads);
        }
        workgroupBarrier();
        // The upper triangle and the rows beyond the tile are not needed.
        if j <= i && i < used {
            for (var x = 0u; x < SLICE; x++) {
                let k = i * STRIDE + x;
                let others = j * STRIDE + x;
                g[0] += products(k_slice[k], others);
                g[1] += products(k_slice[k + STEP], others);
                g[2] += products(k_slice[k + 2u * STEP], others);
                g[3] += products(k_slice[k + 3u * STEP], others);
                p[0] += products(q_slice[k], others);
                p[1] += products(q_slice[k + STEP], others);
                p[2] += products(q_slice[k + 2u * STEP], others);
                p[3] += products(q_slice[k + 3u * STEP], others);
            }
        }
    }
    for (var x = 0u; x < 4u; x++) {
        let r = 4u * i + x;
        let row = tile.first + min(r, tile.rows - 1u);
        a[r * QUADS + j] = below(beta[row * n.heads + head] * g[x], j, r);
        if r < tile.rows {
            attn[(row * n.heads + head) * QUADS + j] = below(p[x], j, r + 1u);
        }
    }
    workgroupBarrier();

    if local < CHUNK {
        solve(local, beta[(tile.first + min(local, tile.rows - 1u)) * n.heads + head], used);
    }
    workgroupBarrier();

    // W = T K and U = T V: eight rows by one quad of columns of K | V at a time.
    for (var block = 0u; block < used; block += 2u) {
        for (var column = local; column < 2u * quads; column += WG) {
            let part = column / quads;
            let quad = column % quads;
            let source = (tile.first * 3u * n.heads + (1u + part) * n.heads + head) * quads + quad;
            let stride = 3u * n.heads * quads;
            var low = mat4x4<f32>();
            var high = mat4x4<f32>();
            let end = min(4u * block + 8u, tile.rows);
            for (var c = 0u; c < end; c++) {
                let x = qkv[source + c * stride];
                low += outer(x, t[c * T_STRIDE + block]);
                high += outer(x, t[c * T_STRIDE + block + 1u]);
            }
            for (var x = 0u; x < 4u; x++) {
                store(part, head, quad, tile, 4u * block + x, low[x]);
                store(part, head, quad, tile, 4u * block + 4u + x, high[x]);
            }
        }
    }
}

// Stores row r of the tile in W (part 0) or U (part 1).
fn store(part: u32, head: u32, quad: u32, tile: Tile, r: u32, value: vec4<f32>) {
    if r >= tile.rows {
        return;
    }
    let at = ((tile.first + r) * n.heads + head) * (n.head_dim / 4u) + quad;
    if part == 0u {
        w[at] = value;
    } else {
        u[at] = value;
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
