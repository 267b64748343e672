// First half of the chunked delta rule with cooperative matrices (f16 products, f32 sums), for all chunks at once: what
// `delta_wy` computes, with W, Q, K and the scores as f16, as `delta_carry` takes them. One workgroup of four subgroups of 32
// threads per (tile, head).
//
// T is solved in f32. Its numbers are at most beta², so f16 holds them. V may be large, so it is divided by 16. 64 columns of
// Q, K or V are in workgroup memory at a time: then two workgroups fit into the 48 KiB that the workgroups of a processor share
// on NVIDIA's GPUs. Needs const CHUNK = 32, PARTS (head_dim / 64, rounded up) and WG = 128 = 8 PART_QUADS.
struct Numbers {
    heads: u32,
    head_dim: u32,
}

@group(0) @binding(0) var<uniform> n: Numbers;
@group(0) @binding(1) var<storage, read> batch: Batch;
@group(0) @binding(2) var<storage, read> qkv: array<vec4<f32>>; // [rows, 3, heads, head_dim / 4]
@group(0) @binding(3) var<storage, read> beta: array<f32>; // [rows, heads]
@group(0) @binding(4) var<storage, read_write> wqk: array<vec4<f16>>; // [rows, heads, -W | Q | K, WIDTH_QUADS]
@group(0) @binding(5) var<storage, read_write> u: array<vec4<f32>>; // [rows, heads, head_dim / 4]
@group(0) @binding(6) var<storage, read_write> attn: array<vec4<f16>>; // [rows, heads, CHUNK / 4]

const PART_QUADS: u32 = 16u; // 64 columns
// Two quads (16 bytes) more than are used, so that neighbouring rows are in different banks.
const PITCH: u32 = PART_QUADS + 2u;
const T_PITCH: u32 = QUADS + 2u;
const RANGE: f32 = 16.0;
const LARGEST: vec4<f32> = vec4<f32>(65504.0);
const WIDTH_QUADS: u32 = PARTS * PART_QUADS;
const A_AT: u32 = CHUNK * QUADS;

var<workgroup> found: vec4<u32>; // the tile's first row and number of rows
var<workgroup> tiles: array<vec4<f16>, 2u * CHUNK * PITCH>; // [Q, later V | K, CHUNK, PART_QUADS]
// [Q Kᵀ | K Kᵀ, row, column / 4], then [T | A], then results: [CHUNK, PART_QUADS].
var<workgroup> a: array<vec4<f32>, 2u * CHUNK * QUADS>;
var<workgroup> half_t: array<vec4<f16>, CHUNK * T_PITCH>; // T[column][row / 4]

fn half(v: vec4<f32>) -> vec4<f16> {
    return vec4<f16>(clamp(v, -LARGEST, LARGEST));
}

// Four rows of a column of T. Neighbouring columns are in different banks.
fn get_t(column: u32, quad: u32) -> vec4<f32> {
    return a[column * QUADS + (quad ^ (column % QUADS))];
}

fn set_t(column: u32, quad: u32, value: vec4<f32>) {
    a[column * QUADS + (quad ^ (column % QUADS))] = value;
}

@compute @workgroup_size(WG)
fn delta_local(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let index = group_index(group, groups);
    let quads = n.head_dim / 4u;
    let head = index % n.heads;
    // Cooperative matrices need control flow that is the same for all threads, as the compiler can see.
    if local == 0u {
        let tile = tile_of(index / n.heads, CHUNK);
        found = vec4<u32>(tile.first, tile.rows, 0u, 0u);
    }
    let tile = workgroupUniformLoad(&found);
    let first = tile.x;
    let rows = tile.y;
    if rows == 0u {
        return;
    }
    // What this thread loads: four rows of Q, K and V. Rows beyond the tile repeat its last row, and their results are never
    // stored.
    let quad = local % PART_QUADS;
    //#for L in 4
    let row_#L = local / PART_QUADS + 8u * #Lu;
    let source_#L = ((first + min(row_#L, rows - 1u)) * 3u * n.heads + head) * quads + quad;
    //#for P in PARTS
    let inside_#P_#L = #Pu * PART_QUADS + quad < quads;
    let q_#P_#L = half(select(vec4<f32>(), qkv[source_#L + #Pu * PART_QUADS], inside_#P_#L));
    let k_#P_#L = half(select(vec4<f32>(), qkv[source_#L + n.heads * quads + #Pu * PART_QUADS], inside_#P_#L));
    //#end
    //#end
    // The first two subgroups have Q, V and U, the others K and W: each 16 rows.
    let part = local / 64u * CHUNK;
    let block = local / 32u % 2u * 16u;
    //#for J in 2
    var square_#J = coop_mat16x16<f32, C>();
    //#end
    //#for P in PARTS
    workgroupBarrier();
    //#for L in 4
    tiles[row_#L * PITCH + quad] = q_#P_#L;
    tiles[(CHUNK + row_#L) * PITCH + quad] = k_#P_#L;
    if row_#L < rows {
        let at = ((first + row_#L) * n.heads + head) * 3u * WIDTH_QUADS + #Pu * PART_QUADS + quad;
        wqk[at + WIDTH_QUADS] = q_#P_#L;
        wqk[at + 2u * WIDTH_QUADS] = k_#P_#L;
    }
    //#end
    workgroupBarrier();
    //#for S in 4
    let left_#P_#S = coopLoadT<coop_mat16x16<f16, A>>(&tiles[(part + block) * PITCH + 4u * #Su], PITCH);
    //#for J in 2
    // K has rows as rows, and is read as columns.
    let right_#P_#S_#J = coopLoad<coop_mat16x16<f16, B>>(&tiles[(CHUNK + 16u * #Ju) * PITCH + 4u * #Su], PITCH);
    square_#J = coopMultiplyAdd(left_#P_#S, right_#P_#S_#J, square_#J);
    //#end
    //#end
    //#end
    //#for J in 2
    coopStoreT(square_#J, &a[(part + block) * QUADS + 4u * #Ju], QUADS);
    //#end
    //#for L in 4
    //#for P in PARTS
    let v_#P_#L = select(vec4<f32>(), qkv[source_#L + 2u * n.heads * quads + #Pu * PART_QUADS], inside_#P_#L);
    //#end
    //#end
    workgroupBarrier();
    for (var i = local; i < CHUNK * QUADS; i += WG) {
        let r = i / QUADS;
        let row = (first + min(r, rows - 1u)) * n.heads + head;
        a[A_AT + i] = below(beta[row] * a[A_AT + i], i % QUADS, r);
        if r < rows {
            attn[row * QUADS + i % QUADS] = half(below(a[i], i % QUADS, r + 1u));
        }
    }
    workgroupBarrier();
    if local < CHUNK {
        solve(local, beta[(first + min(local, rows - 1u)) * n.heads + head], QUADS);
        for (var r = 0u; r < QUADS; r++) {
            half_t[local * T_PITCH + r] = half(get_t(local, r));
        }
    }
    // W = T K and U = T V. T has columns as rows.
    let whole = rows == CHUNK && n.head_dim % 16u == 0u;
    let stride = n.heads * quads;
    //#for P in PARTS
    workgroupBarrier();
    //#for L in 4
    tiles[row_#L * PITCH + quad] = half(v_#P_#L / RANGE);
    tiles[(CHUNK + row_#L) * PITCH + quad] = k_#P_#L;
    //#end
    workgroupBarrier();
    //#for S in 4
    var result_#P_#S = coop_mat16x16<f32, C>();
    //#for J in 2
    let left_t_#P_#S_#J = coopLoad<coop_mat16x16<f16, A>>(&half_t[16u * #Ju * T_PITCH + block / 4u], T_PITCH);
    let right_t_#P_#S_#J = coopLoadT<coop_mat16x16<f16, B>>(&tiles[(part + 16u * #Ju) * PITCH + 4u * #Su], PITCH);
    result_#P_#S = coopMultiplyAdd(left_t_#P_#S_#J, right_t_#P_#S_#J, result_#P_#S);
    //#end
    let column_#P_#S = #Pu * PART_QUADS + 4u * #Su;
    let at_#P_#S = ((first + block) * n.heads + head) * quads + column_#P_#S;
    if part != 0u {
        coopStoreT(result_#P_#S, &a[block * PART_QUADS + 4u * #Su], PART_QUADS);
    } else if whole && column_#P_#S < quads {
        coopStoreT(result_#P_#S * RANGE, &u[at_#P_#S], stride);
    }
    //#end
    workgroupBarrier();
    //#for L in 4
    if row_#L < rows {
        let at = ((first + row_#L) * n.heads + head) * 3u * WIDTH_QUADS + #Pu * PART_QUADS + quad;
        wqk[at] = half(-a[row_#L * PART_QUADS + quad]);
    }
    //#end
    if !whole {
        workgroupBarrier();
        if part == 0u {
            //#for S in 4
            coopStoreT(result_#P_#S, &a[block * PART_QUADS + 4u * #Su], PART_QUADS);
            //#end
        }
        workgroupBarrier();
        //#for L in 4
        if row_#L < rows && #Pu * PART_QUADS + quad < quads {
            let at = ((first + row_#L) * n.heads + head) * quads + #Pu * PART_QUADS + quad;
            u[at] = a[row_#L * PART_QUADS + quad] * RANGE;
        }
        //#end
    }
    //#end
}
