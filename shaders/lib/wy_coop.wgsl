// One tile and head of `delta_wy` with cooperative matrices (f16 products, f32 sums), by four subgroups of 32 threads. T is
// solved in f32. Its numbers are at most beta², so f16 holds them. V may be large, so it is divided by 16. Needs const WIDTH
// (head_dim, rounded up to 16 SLICES) and WG = 128.
const WIDTH_QUADS: u32 = WIDTH / 4u;
// Two quads (16 bytes) more than are used, so that neighbouring rows are in different banks.
const PITCH: u32 = WIDTH_QUADS + 2u;
const T_PITCH: u32 = QUADS + 2u;
const RANGE: f32 = 16.0;
const LARGEST: vec4<f32> = vec4<f32>(65504.0);
const A_AT: u32 = CHUNK * QUADS;

var<workgroup> found: vec4<u32>; // the tile's first row and number of rows
var<workgroup> tiles: array<vec4<f16>, 2u * CHUNK * PITCH>; // [Q, later V | K, CHUNK, WIDTH / 4]
// [Q Kᵀ | K Kᵀ, row, column / 4], then [T | A]. At last its second half has results: [subgroups, 16 rows, 4].
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

fn wy(index: u32, local: u32) {
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
    // Q and K. Rows beyond the tile repeat its last row, and their results are never stored.
    for (var i = local; i < CHUNK * WIDTH_QUADS; i += WG) {
        let quad = i % WIDTH_QUADS;
        let source = ((first + min(i / WIDTH_QUADS, rows - 1u)) * 3u * n.heads + head) * quads + min(quad, quads - 1u);
        let to = i / WIDTH_QUADS * PITCH + quad;
        tiles[to] = half(select(vec4<f32>(), qkv[source], quad < quads));
        tiles[CHUNK * PITCH + to] = half(select(vec4<f32>(), qkv[source + n.heads * quads], quad < quads));
    }
    workgroupBarrier();
    // The first two subgroups have Q, V and U, the others K and W: each 16 rows.
    let part = local / 64u * CHUNK;
    let block = local / 32u % 2u * 16u;
    //#for J in 2
    var square_#J = coop_mat16x16<f32, C>();
    //#for S in SLICES
    let left_#J_#S = coopLoadT<coop_mat16x16<f16, A>>(&tiles[(part + block) * PITCH + 4u * #Su], PITCH);
    // K has rows as rows, and is read as columns.
    let right_#J_#S = coopLoad<coop_mat16x16<f16, B>>(&tiles[(CHUNK + 16u * #Ju) * PITCH + 4u * #Su], PITCH);
    square_#J = coopMultiplyAdd(left_#J_#S, right_#J_#S, square_#J);
    //#end
    coopStoreT(square_#J, &a[(part + block) * QUADS + 4u * #Ju], QUADS);
    //#end
    workgroupBarrier();
    for (var i = local; i < CHUNK * QUADS; i += WG) {
        let r = i / QUADS;
        let row = (first + min(r, rows - 1u)) * n.heads + head;
        a[A_AT + i] = below(beta[row] * a[A_AT + i], i % QUADS, r);
        if r < rows {
            attn[row * QUADS + i % QUADS] = below(a[i], i % QUADS, r + 1u);
        }
    }
    workgroupBarrier();
    if local < CHUNK {
        solve(local, beta[(first + min(local, rows - 1u)) * n.heads + head], QUADS);
        for (var r = 0u; r < QUADS; r++) {
            half_t[local * T_PITCH + r] = half(get_t(local, r));
        }
    }
    for (var i = local; i < CHUNK * WIDTH_QUADS; i += WG) {
        let quad = i % WIDTH_QUADS;
        let source = ((first + min(i / WIDTH_QUADS, rows - 1u)) * 3u * n.heads + head) * quads + min(quad, quads - 1u);
        tiles[i / WIDTH_QUADS * PITCH + quad] = half(select(vec4<f32>(), qkv[source + 2u * n.heads * quads] / RANGE, quad < quads));
    }
    workgroupBarrier();
    // W = T K and U = T V, 16 columns at a time.
    let lane = local % 32u;
    //#for S in SLICES
    var result_#S = coop_mat16x16<f32, C>();
    //#for J in 2
    // T has columns as rows.
    let left_t_#S_#J = coopLoad<coop_mat16x16<f16, A>>(&half_t[16u * #Ju * T_PITCH + block / 4u], T_PITCH);
    let right_t_#S_#J = coopLoadT<coop_mat16x16<f16, B>>(&tiles[(part + 16u * #Ju) * PITCH + 4u * #Su], PITCH);
    result_#S = coopMultiplyAdd(left_t_#S_#J, right_t_#S_#J, result_#S);
    //#end
    coopStoreT(result_#S, &a[A_AT + local / 32u * 64u], 4u);
    workgroupBarrier();
    //#for I in 2
    {
        let r = block + lane / 4u + 8u * #Iu;
        let quad = 4u * #Su + lane % 4u;
        let at = ((first + r) * n.heads + head) * quads + quad;
        let value = a[A_AT + local / 32u * 64u + lane + 32u * #Iu];
        if r < rows && quad < quads {
            if part == 0u {
                u[at] = value * RANGE;
            } else {
                w[at] = value;
            }
        }
    }
    //#end
    workgroupBarrier();
    //#end
}
