// Mamba2 scan, chunk by chunk (spec 3.4, chunked prefill), with cooperative matrices (f16 products, f32 sums). One workgroup
// of eight subgroups of 32 threads per (segment, head, 32 rows of the head). It keeps these rows of the state, S, as matrices of
// f32 in registers, and takes the chunks of the segment one after the other:
//
// - Y[t] = exp(s[t]) C[t] Sᵀ + sum over r <= t of (C[t] . B[r]) exp(s[t] - s[r]) dt[r] x[r] + D x[t],
// - S = exp(s[last]) S + sum over r of exp(s[last] - s[r]) dt[r] x[r] (x) B[r].
//
// f16 has no room for large numbers, so B, C, x and the scores are divided by 16 and S by 64. Sums are kept divided by 256.
// S and Y take turns in workgroup memory, and so do S as f16 and the scores, and C and B. Needs const WG = 256, WIDTH (d_state,
// rounded up to 64 BLOCKS = 16 SLICES) and LOADS (quads of a thread, of B or C of a chunk).
struct Numbers {
    heads: u32,
    head_dim: u32,
    d_state: u32,
    in_stride: u32,
    slot_len: u32,
    state_at: u32,
}

@group(0) @binding(0) var<uniform> n: Numbers;
@group(0) @binding(1) var<storage, read> batch: Batch;
@group(0) @binding(2) var<storage, read> xbc: array<vec4<f32>>; // [rows, x: d_inner | B: d_state | C: d_state] / 4
@group(0) @binding(3) var<storage, read> p: array<f32>; // [rows, in_stride], ends with dt: [heads]
@group(0) @binding(4) var<storage, read> params: array<f32>; // [3, heads]: A, D, dt_bias
@group(0) @binding(5) var<storage, read> scores: array<vec4<f32>>; // [tiles, r: CHUNK, t: CHUNK] / 4
@group(0) @binding(6) var<storage, read> bc: array<vec4<f16>>; // [rows, B | C, WIDTH] / 4, divided by 16
@group(0) @binding(7) var<storage, read_write> state: array<vec4<f32>>; // [slots, slot_len] / 4, at state_at [heads, head_dim, d_state]
@group(0) @binding(8) var<storage, read_write> y: array<vec4<f32>>; // [rows, d_inner] / 4

const CHUNK: u32 = 64u;
const QUADS: u32 = CHUNK / 4u;
const PART: u32 = 32u; // rows of the head
const PART_QUADS: u32 = PART / 4u;
const WIDTH_QUADS: u32 = WIDTH / 4u;
// Two quads (16 bytes) more than are used, so that neighbouring rows are in different banks.
const PITCH: u32 = WIDTH_QUADS + 2u;
const SCORE_PITCH: u32 = QUADS + 2u;
const X_PITCH: u32 = PART_QUADS + 2u;
const LARGEST: vec4<f32> = vec4<f32>(65504.0);

var<workgroup> found: vec4<u32>; // the segment's first row, rows, slot, and position of the first row
var<workgroup> sums: array<vec4<f32>, max(PART * WIDTH_QUADS, CHUNK * PART_QUADS)>; // S / 256, [PART, WIDTH / 4]; or Y / 256, [t, PART / 4]
// S / 64, [PART, WIDTH / 4]; or scores with decay, divided by 16, [r, t / 4]
var<workgroup> halves: array<vec4<f16>, max(PART * PITCH, CHUNK * SCORE_PITCH)>;
var<workgroup> tile_bc: array<vec4<f16>, CHUNK * PITCH>; // C, later B, [CHUNK, WIDTH / 4]
var<workgroup> xs: array<vec4<f16>, CHUNK * X_PITCH>; // dt x, divided by 16, later with decay, [r, PART / 4]
var<workgroup> steps: array<f32, CHUNK>; // dt of each row; 0 beyond the last row, which then changes nothing
// -s of each row, as whole + part: `whole` is exact, and `part` is the sum of fractions. So the difference of two such sums
// is right, however large they are.
var<workgroup> whole: array<f32, CHUNK>;
var<workgroup> part: array<f32, CHUNK>;
var<workgroup> totals: vec4<f32>; // sums of the first 32 rows

fn half(v: vec4<f32>) -> vec4<f16> {
    return vec4<f16>(clamp(v, -LARGEST, LARGEST));
}

@compute @workgroup_size(WG)
fn ssd_carry(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let quads = n.head_dim / 4u;
    let parts = (n.head_dim + PART - 1u) / PART;
    let index = group_index(group, groups);
    let first_row = index % parts * PART;
    let head = index / parts % n.heads;
    // Cooperative matrices need control flow that is the same for all threads, as the compiler can see.
    if local == 0u {
        let number = index / parts / n.heads;
        let segment = batch.segment[min(number, MAX_SEGMENTS - 1u)];
        let rows = select(0u, segment.rows, number < batch.segments);
        found = vec4<u32>(segment.first, rows, segment.slot, batch.row[segment.first].position);
    }
    let segment = workgroupUniformLoad(&found);
    let start = segment.x;
    let rows = segment.y;
    if rows == 0u {
        return;
    }
    let places = n.d_state / 4u;
    let d_inner = n.heads * quads;
    let stride = d_inner + 2u * places;
    var tile = 0u;
    for (var i = 0u; i < index / parts / n.heads; i++) {
        tile += (batch.segment[i].rows + CHUNK - 1u) / CHUNK;
    }
    let state_at = (segment.z * n.slot_len + n.state_at) / 4u + (head * n.head_dim + first_row) * places;
    for (var i = local; i < PART * WIDTH_QUADS; i += WG) {
        sums[i] = vec4<f32>();
        if segment.w != 0u && i % WIDTH_QUADS < places && first_row + i / WIDTH_QUADS < n.head_dim {
            sums[i] = state[state_at + i / WIDTH_QUADS * places + i % WIDTH_QUADS] / 256.0;
        }
    }
    workgroupBarrier();
    // A subgroup has 16 rows of the head, and 16 rows t of the chunk or some blocks of 16 columns of S.
    let block = local / 32u % 4u;
    let rows_at = local / 128u * 16u;
    //#for B in BLOCKS
    var s_#B = coopLoadT<coop_mat16x16<f32, C>>(&sums[rows_at * WIDTH_QUADS + 4u * (block + 4u * #Bu)], WIDTH_QUADS);
    //#end
    let decay = params[head];
    let skip = params[n.heads + head];
    let bias = params[2u * n.heads + head];

    // What this thread loads of each chunk. It loads the next chunk before it computes with this one.
    let column = first_row / 4u + local % PART_QUADS;
    //#for I in 2
    let x_row_#I = (local + #Iu * WG) / PART_QUADS;
    var next_x_#I = vec4<f32>();
    if x_row_#I < rows && column < quads {
        next_x_#I = xbc[(start + x_row_#I) * stride + head * quads + column];
    }
    //#end
    //#for I in 4
    let r_#I = (local + #Iu * WG) / QUADS;
    let t_#I = 4u * (local % QUADS);
    var next_score_#I = vec4<f32>();
    if r_#I < rows {
        next_score_#I = scores[(tile * CHUNK + r_#I) * QUADS + local % QUADS];
    }
    //#end
    var next_raw = 0.0;
    if local < min(rows, CHUNK) {
        next_raw = p[(start + local) * n.in_stride + n.in_stride - n.heads + head];
    }
    // Rows of B and C beyond the segment repeat its last row, and do not contribute.
    //#for L in LOADS
    let bc_row_#L = (local + #Lu * WG) / WIDTH_QUADS;
    let bc_quad_#L = (local + #Lu * WG) % WIDTH_QUADS;
    let bc_at_#L = (start + min(bc_row_#L, rows - 1u)) * 2u * WIDTH_QUADS + bc_quad_#L;
    var next_b_#L = bc[bc_at_#L];
    var next_c_#L = bc[bc_at_#L + WIDTH_QUADS];
    //#end
    for (var begin = 0u; begin < rows; begin += CHUNK) {
        let first = start + begin;
        let last = min(CHUNK, rows - begin) - 1u;
        //#for L in LOADS
        let b_#L = next_b_#L;
        let c_#L = next_c_#L;
        let then_#L = (start + min(begin + CHUNK + bc_row_#L, rows - 1u)) * 2u * WIDTH_QUADS + bc_quad_#L;
        next_b_#L = bc[then_#L];
        next_c_#L = bc[then_#L + WIDTH_QUADS];
        //#end
        //#for I in 2
        let x_#I = next_x_#I;
        next_x_#I = vec4<f32>();
        if begin + CHUNK + x_row_#I < rows && column < quads {
            next_x_#I = xbc[(first + CHUNK + x_row_#I) * stride + head * quads + column];
        }
        //#end
        //#for I in 4
        let score_#I = next_score_#I;
        next_score_#I = vec4<f32>();
        if begin + CHUNK + r_#I < rows {
            next_score_#I = scores[((tile + 1u) * CHUNK + r_#I) * QUADS + local % QUADS];
        }
        //#end
        let raw = next_raw;
        if local < CHUNK && begin + CHUNK + local < rows {
            next_raw = p[(first + CHUNK + local) * n.in_stride + n.in_stride - n.heads + head];
        }

        // Steps and sums of steps.
        var step = 0.0;
        var fall = 0.0;
        if local <= last {
            step = softplus(raw + bias);
            // exp(-1e5) is 0, as is exp of anything below that.
            fall = min(-step * decay, 1e5);
        }
        let more = floor(fall);
        let sum = vec2<f32>(subgroupInclusiveAdd(more), subgroupInclusiveAdd(fall - more));
        if local == 31u {
            totals = vec4<f32>(sum, 0.0, 0.0);
        }
        workgroupBarrier();
        if local < CHUNK {
            let before = select(vec2<f32>(), totals.xy, local >= 32u);
            steps[local] = step;
            whole[local] = sum.x + before.x;
            part[local] = sum.y + before.y;
        }
        //#for L in LOADS
        tile_bc[bc_row_#L * PITCH + bc_quad_#L] = c_#L;
        //#end
        for (var i = local; i < PART * WIDTH_QUADS; i += WG) {
            halves[i / WIDTH_QUADS * PITCH + i % WIDTH_QUADS] = half(sums[i] * 4.0);
        }
        workgroupBarrier();

        // From the state before the chunk.
        var old = coop_mat16x16<f32, C>();
        //#for S in SLICES
        // S has rows of the head as rows, and is read as columns.
        let half_s_#S = coopLoad<coop_mat16x16<f16, B>>(&halves[rows_at * PITCH + 4u * #Su], PITCH);
        let left_c_#S = coopLoadT<coop_mat16x16<f16, A>>(&tile_bc[16u * block * PITCH + 4u * #Su], PITCH);
        old = coopMultiplyAdd(left_c_#S, half_s_#S, old);
        //#end
        coopStoreT(old, &sums[16u * block * PART_QUADS + rows_at / 4u], PART_QUADS);
        //#for I in 2
        xs[x_row_#I * X_PITCH + local % PART_QUADS] = half(x_#I * (steps[x_row_#I] / 16.0));
        //#end
        workgroupBarrier();
        //#for L in LOADS
        tile_bc[bc_row_#L * PITCH + bc_quad_#L] = b_#L;
        //#end
        //#for I in 4
        {
            let wholes = vec4<f32>(whole[t_#I], whole[t_#I + 1u], whole[t_#I + 2u], whole[t_#I + 3u]);
            let fractions = vec4<f32>(part[t_#I], part[t_#I + 1u], part[t_#I + 2u], part[t_#I + 3u]);
            let fade = max((wholes - whole[r_#I]) + (fractions - part[r_#I]), vec4<f32>());
            let seen = vec4<u32>(r_#I) <= vec4<u32>(t_#I, t_#I + 1u, t_#I + 2u, t_#I + 3u);
            halves[r_#I * SCORE_PITCH + t_#I / 4u] = half(select(vec4<f32>(), score_#I * exp(-fade) / 16.0, seen));
        }
        //#end
        //#for I in 2
        sums[local + #Iu * WG] *= 4.0 * exp(-(whole[x_row_#I] + part[x_row_#I]));
        //#end
        workgroupBarrier();
        // From the rows of the chunk.
        var all = coopLoadT<coop_mat16x16<f32, C>>(&sums[16u * block * PART_QUADS + rows_at / 4u], PART_QUADS);
        //#for J in 4
        let faded_#J = coopLoad<coop_mat16x16<f16, A>>(&halves[16u * #Ju * SCORE_PITCH + 4u * block], SCORE_PITCH);
        let xs_#J = coopLoadT<coop_mat16x16<f16, B>>(&xs[16u * #Ju * X_PITCH + rows_at / 4u], X_PITCH);
        all = coopMultiplyAdd(faded_#J, xs_#J, all);
        //#end
        coopStoreT(all, &sums[16u * block * PART_QUADS + rows_at / 4u], PART_QUADS);
        workgroupBarrier();

        //#for I in 2
        if x_row_#I <= last && column < quads {
            y[(first + x_row_#I) * d_inner + head * quads + column] = sums[local + #Iu * WG] * 256.0 + skip * x_#I;
        }
        {
            let fade = max((whole[CHUNK - 1u] - whole[x_row_#I]) + (part[CHUNK - 1u] - part[x_row_#I]), 0.0);
            xs[x_row_#I * X_PITCH + local % PART_QUADS] = half(x_#I * (steps[x_row_#I] * exp(-fade) / 16.0));
        }
        //#end
        let rest = exp(-(whole[CHUNK - 1u] + part[CHUNK - 1u]));
        workgroupBarrier();
        // The state after the chunk.
        //#for J in 4
        let left_#J = coopLoad<coop_mat16x16<f16, A>>(&xs[16u * #Ju * X_PITCH + rows_at / 4u], X_PITCH);
        //#end
        //#for B in BLOCKS
        s_#B = s_#B * rest;
        //#for J in 4
        let b_#B_#J = coopLoadT<coop_mat16x16<f16, B>>(&tile_bc[16u * #Ju * PITCH + 4u * (block + 4u * #Bu)], PITCH);
        s_#B = coopMultiplyAdd(left_#J, b_#B_#J, s_#B);
        //#end
        coopStoreT(s_#B, &sums[rows_at * WIDTH_QUADS + 4u * (block + 4u * #Bu)], WIDTH_QUADS);
        //#end
        tile++;
    }
    workgroupBarrier();
    for (var i = local; i < PART * WIDTH_QUADS; i += WG) {
        if i % WIDTH_QUADS < places && first_row + i / WIDTH_QUADS < n.head_dim {
            state[state_at + i / WIDTH_QUADS * places + i % WIDTH_QUADS] = sums[i] * 256.0;
        }
    }
}
