// For the chunked Mamba2 scan with cooperative matrices (`ssd_carry`): the scores C[t] . B[r] inside chunks, computed once
// for all heads, and B and C as f16. One workgroup of four subgroups of 32 threads per chunk. B and C are divided by 16, so
// that they may reach a million. Needs const WG = 128, WIDTH (d_state, rounded up to 16 SLICES) and
// LOADS (quads of a thread, of B or C).
struct Numbers {
    d_inner: u32,
    d_state: u32,
}

@group(0) @binding(0) var<uniform> n: Numbers;
@group(0) @binding(1) var<storage, read> batch: Batch;
@group(0) @binding(2) var<storage, read> xbc: array<vec4<f32>>; // [rows, x: d_inner | B: d_state | C: d_state] / 4
@group(0) @binding(3) var<storage, read_write> scores: array<vec4<f32>>; // [tiles, r: CHUNK, t: CHUNK] / 4
@group(0) @binding(4) var<storage, read_write> bc: array<vec4<f16>>; // [rows, B | C, WIDTH] / 4

const CHUNK: u32 = 64u;
const WIDTH_QUADS: u32 = WIDTH / 4u;
// Two quads (16 bytes) more than are used, so that neighbouring rows are in different banks.
const PITCH: u32 = WIDTH_QUADS + 2u;
const RANGE: f32 = 16.0;
const LARGEST: vec4<f32> = vec4<f32>(65504.0);

var<workgroup> found: vec4<u32>; // the tile's first row and number of rows
var<workgroup> tiles: array<vec4<f16>, 2u * CHUNK * PITCH>; // [B | C, CHUNK, WIDTH / 4]
var<workgroup> results: array<vec4<f32>, CHUNK * 4u>; // [r: CHUNK, 16 t] / 4

@compute @workgroup_size(WG)
fn ssd_local(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let index = group_index(group, groups);
    // Cooperative matrices need control flow that is the same for all threads, as the compiler can see.
    if local == 0u {
        let tile = tile_of(index, CHUNK);
        found = vec4<u32>(tile.first, tile.rows, 0u, 0u);
    }
    let tile = workgroupUniformLoad(&found);
    let first = tile.x;
    let rows = tile.y;
    if rows == 0u {
        return;
    }
    let places = n.d_state / 4u;
    let stride = n.d_inner / 4u + 2u * places;
    //#for L in LOADS
    let row_#L = (local + #Lu * WG) / WIDTH_QUADS;
    let quad_#L = (local + #Lu * WG) % WIDTH_QUADS;
    let from_#L = (first + min(row_#L, rows - 1u)) * stride + n.d_inner / 4u + min(quad_#L, places - 1u);
    //#end
    for (var part = 0u; part < 2u; part++) {
        // All loads first, so that they run at the same time.
        //#for L in LOADS
        let x_#L = xbc[from_#L + part * places];
        //#end
        //#for L in LOADS
        {
            let inside = row_#L < rows && quad_#L < places;
            let value = vec4<f16>(select(vec4<f32>(), clamp(x_#L / RANGE, -LARGEST, LARGEST), inside));
            tiles[(part * CHUNK + row_#L) * PITCH + quad_#L] = value;
            if row_#L < rows {
                bc[((first + row_#L) * 2u + part) * WIDTH_QUADS + quad_#L] = value;
            }
        }
        //#end
    }
    workgroupBarrier();
    let block = local / 32u * 16u; // of r
    //#for T in 4
    var score_#T = coop_mat16x16<f32, C>();
    //#for S in SLICES
    let b_#T_#S = coopLoadT<coop_mat16x16<f16, A>>(&tiles[block * PITCH + 4u * #Su], PITCH);
    // C has rows as rows, and is read as columns.
    let c_#T_#S = coopLoad<coop_mat16x16<f16, B>>(&tiles[(CHUNK + 16u * #Tu) * PITCH + 4u * #Su], PITCH);
    score_#T = coopMultiplyAdd(b_#T_#S, c_#T_#S, score_#T);
    //#end
    coopStoreT(score_#T, &results[block * 4u], 4u);
    workgroupBarrier();
    for (var i = local; i < CHUNK * 4u; i += WG) {
        if i / 4u < rows {
            // Rows beyond the tile are zero in `tiles`, so their scores are zero.
            scores[(index * CHUNK + i / 4u) * (CHUNK / 4u) + 4u * #Tu + i % 4u] = results[i] * (RANGE * RANGE);
        }
    }
    workgroupBarrier();
    //#end
}
