// Second half of the chunked delta rule with cooperative matrices (f16 products, f32 sums): updates the state chunk by chunk, as
// `delta_chunked` does, from the results of `delta_local`. One workgroup of four subgroups of 32 threads per (segment, head,
// 16 value columns): V' = U - W S; O = (Q S + scores V') / sqrt(head_dim); S = S + Kᵀ V'.
//
// S stays in registers as matrices of f32, and is rounded to f16 for the products. S, U and V' are divided by 16 here, so that
// they may reach a million. A thread loads the next chunk before it computes with this one. (Matrices that were loaded
// straight from storage buffers took 240 µs on an H200 where these, which come through workgroup memory, take 148.) Needs const CHUNK = 32,
// WIDTH (head_dim, rounded up to 64 BLOCKS = 16 SLICES), LOADS (quads of a thread, of W, Q or K of a chunk) and WG = 128 =
// 4 CHUNK.
struct Numbers {
    heads: u32,
    head_dim: u32,
    slot_len: u32,
    state_at: u32,
}

@group(0) @binding(0) var<uniform> n: Numbers;
@group(0) @binding(1) var<storage, read> batch: Batch;
@group(0) @binding(2) var<storage, read> wqk: array<vec4<f16>>; // [rows, heads, -W | Q | K, WIDTH / 4]
@group(0) @binding(3) var<storage, read> u: array<vec4<f32>>; // [rows, heads, head_dim / 4]
@group(0) @binding(4) var<storage, read> attn: array<vec4<f16>>; // [rows, heads, CHUNK / 4]
@group(0) @binding(5) var<storage, read_write> state: array<vec4<f32>>; // [slots, slot_len / 4], S at state_at: [heads, key, value / 4]
@group(0) @binding(6) var<storage, read_write> out: array<vec4<f32>>; // [rows, heads, head_dim / 4]

const WIDTH_QUADS: u32 = WIDTH / 4u;
const QUADS: u32 = CHUNK / 4u; // of a row of scores
// Two quads (16 bytes) more than are used, so that neighbouring rows are in different banks.
const PITCH: u32 = WIDTH_QUADS + 2u;
const SCORE_PITCH: u32 = QUADS + 2u;
const COLUMN_PITCH: u32 = 6u;
const RANGE: f32 = 16.0;
const LARGEST: vec4<f32> = vec4<f32>(65504.0);

var<workgroup> found: vec4<u32>; // the segment's first row, rows, slot, and position of the first row
var<workgroup> tiles: array<vec4<f16>, 3u * CHUNK * PITCH>; // [-W | Q | K, CHUNK, WIDTH / 4]
var<workgroup> scores: array<vec4<f16>, CHUNK * SCORE_PITCH>; // [CHUNK, CHUNK / 4]
var<workgroup> s: array<vec4<f32>, WIDTH * 4u>; // [WIDTH, 4]
var<workgroup> half_s: array<vec4<f16>, WIDTH * COLUMN_PITCH>; // [WIDTH, 4]
var<workgroup> sums: array<vec4<f32>, 2u * CHUNK * 4u>; // [V' | O, CHUNK, 4]
var<workgroup> rest: array<vec4<f16>, CHUNK * COLUMN_PITCH>; // V', [CHUNK, 4]

fn half(v: vec4<f32>) -> vec4<f16> {
    return vec4<f16>(clamp(v, -LARGEST, LARGEST));
}

@compute @workgroup_size(WG)
fn delta_carry(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let index = group_index(group, groups);
    let quads = n.head_dim / 4u;
    let parts = (quads + 3u) / 4u;
    let first_column = index % parts * 4u;
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
    let state_at = (segment.z * n.slot_len + n.state_at) / 4u + head * n.head_dim * quads + first_column;
    for (var i = local; i < WIDTH * 4u; i += WG) {
        s[i] = vec4<f32>();
        if segment.w != 0u && i / 4u < n.head_dim && first_column + i % 4u < quads {
            s[i] = state[state_at + i / 4u * quads + i % 4u] / RANGE;
        }
    }
    workgroupBarrier();
    // The first two subgroups compute V', the others O: each 16 rows. Then each has some blocks of 16 keys of S.
    let subgroup = local / 32u;
    let mine = (subgroup / 2u * CHUNK + subgroup % 2u * 16u);
    let block = subgroup % 2u * 16u;
    //#for B in BLOCKS
    let key_#B = 16u * (subgroup + 4u * #Bu);
    var s_#B = coopLoadT<coop_mat16x16<f32, C>>(&s[key_#B * 4u], 4u);
    //#end

    // What this thread loads of each chunk.
    let column = first_column + local % 4u;
    let own_row = local / 4u;
    //#for L in LOADS
    let row_#L = (local + #Lu * WG) / WIDTH_QUADS;
    let quad_#L = (local + #Lu * WG) % WIDTH_QUADS;
    let at_#L = ((start + min(row_#L, rows - 1u)) * n.heads + head) * 3u * WIDTH_QUADS + quad_#L;
    var next_w_#L = wqk[at_#L];
    var next_q_#L = wqk[at_#L + WIDTH_QUADS];
    var next_k_#L = wqk[at_#L + 2u * WIDTH_QUADS];
    //#end
    //#for I in 2
    let score_row_#I = (local + #Iu * WG) / QUADS;
    let score_quad_#I = (local + #Iu * WG) % QUADS;
    var next_score_#I = attn[((start + min(score_row_#I, rows - 1u)) * n.heads + head) * QUADS + score_quad_#I];
    //#end
    var next_u = u[((start + min(own_row, rows - 1u)) * n.heads + head) * quads + min(column, quads - 1u)];

    for (var begin = 0u; begin < rows; begin += CHUNK) {
        //#for L in LOADS
        tiles[row_#L * PITCH + quad_#L] = next_w_#L;
        tiles[(CHUNK + row_#L) * PITCH + quad_#L] = next_q_#L;
        tiles[(2u * CHUNK + row_#L) * PITCH + quad_#L] = next_k_#L;
        //#end
        //#for I in 2
        scores[score_row_#I * SCORE_PITCH + score_quad_#I] = next_score_#I;
        //#end
        sums[local] = next_u / RANGE;
        sums[CHUNK * 4u + local] = vec4<f32>();
        //#for B in BLOCKS
        //#for I in 2
        half_s[(local + (2u * #Bu + #Iu) * WG) / 4u * COLUMN_PITCH + local % 4u] = half(s[local + (2u * #Bu + #Iu) * WG]);
        //#end
        //#end
        workgroupBarrier();

        //#for L in LOADS
        let from_#L = ((start + min(begin + CHUNK + row_#L, rows - 1u)) * n.heads + head) * 3u * WIDTH_QUADS + quad_#L;
        next_w_#L = wqk[from_#L];
        next_q_#L = wqk[from_#L + WIDTH_QUADS];
        next_k_#L = wqk[from_#L + 2u * WIDTH_QUADS];
        //#end
        //#for I in 2
        next_score_#I = attn[((start + min(begin + CHUNK + score_row_#I, rows - 1u)) * n.heads + head) * QUADS + score_quad_#I];
        //#end
        next_u = u[((start + min(begin + CHUNK + own_row, rows - 1u)) * n.heads + head) * quads + min(column, quads - 1u)];

        // V' = U - W S, and the first part of O, Q S.
        var sum = coopLoadT<coop_mat16x16<f32, C>>(&sums[mine * 4u], 4u);
        //#for S in SLICES
        let left_#S = coopLoadT<coop_mat16x16<f16, A>>(&tiles[mine * PITCH + 4u * #Su], PITCH);
        let right_#S = coopLoadT<coop_mat16x16<f16, B>>(&half_s[16u * #Su * COLUMN_PITCH], COLUMN_PITCH);
        sum = coopMultiplyAdd(left_#S, right_#S, sum);
        //#end
        coopStoreT(sum, &sums[mine * 4u], 4u);
        workgroupBarrier();
        // Rows beyond the segment must not change S.
        rest[local / 4u * COLUMN_PITCH + local % 4u] = half(select(vec4<f32>(), sums[local], begin + own_row < rows));
        workgroupBarrier();
        // The second part of O, scores V'. (The first two subgroups add it to V', which is not needed any more.) And S = S +
        // Kᵀ V'.
        var both = coopLoadT<coop_mat16x16<f32, C>>(&sums[mine * 4u], 4u);
        //#for J in 2
        let rest_#J = coopLoadT<coop_mat16x16<f16, B>>(&rest[16u * #Ju * COLUMN_PITCH], COLUMN_PITCH);
        let score_#J = coopLoadT<coop_mat16x16<f16, A>>(&scores[block * SCORE_PITCH + 4u * #Ju], SCORE_PITCH);
        both = coopMultiplyAdd(score_#J, rest_#J, both);
        //#end
        coopStoreT(both, &sums[mine * 4u], 4u);
        //#for B in BLOCKS
        //#for J in 2
        // K has rows as rows, and is read as columns.
        let key_#B_#J = coopLoad<coop_mat16x16<f16, A>>(&tiles[(2u * CHUNK + 16u * #Ju) * PITCH + key_#B / 4u], PITCH);
        s_#B = coopMultiplyAdd(key_#B_#J, rest_#J, s_#B);
        //#end
        coopStoreT(s_#B, &s[key_#B * 4u], 4u);
        //#end
        workgroupBarrier();
        if begin + own_row < rows && column < quads {
            let scale = RANGE / sqrt(f32(n.head_dim));
            out[((start + begin + own_row) * n.heads + head) * quads + column] = sums[CHUNK * 4u + local] * scale;
        }
    }
    for (var i = local; i < n.head_dim * 4u; i += WG) {
        if first_column + i % 4u < quads {
            state[state_at + i / 4u * quads + i % 4u] = s[i] * RANGE;
        }
    }
}
