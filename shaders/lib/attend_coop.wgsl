// One tile of `attention` over keys and values of f16 with cooperative matrices (tensor cores): products of f16, sums
// and softmax in f32. Each subgroup of 32 threads has 16 of the tile's 64 queries, and their results, in matrices of 16
// × 16. All subgroups take the same 32 keys at a time from workgroup memory, where a query has two threads for its
// softmax. Keys and values take turns in one place: then two workgroups fit into the 48 KiB that workgroups of one processor
// share on NVIDIA's GPUs. Queries are multiplied by `n.scale` and log2(e) before they are rounded to f16, so that scores are exponents
// of 2. The exponents of a query are counted from `top`. Following the largest score would mean to shrink the results
// with almost every step, and the place of a number in a cooperative matrix is not known. So `top` only follows when a
// score is more than SLACK above it: a weight is at most 2^SLACK, which f16 holds, and the results are shrunk in
// workgroup memory, rarely. Needs const SLICES = HEAD_DIM / 16, QUERIES = 64 and WG = 128, with which each thread loads
// SLICES quads of 32 keys.
const KEYS: u32 = 32u;
// Rows of weights are arrays of groups of 16 bytes, as in lib/matmul_coop.wgsl.
//
// Two vectors of f16 (16 bytes) more than are used, so that neighbouring lines are in different banks of workgroup memory.
const PITCH: u32 = QUADS + 2u;
const WEIGHT_GROUPS: u32 = KEYS / 8u + 1u;
const QUERY_PITCH: u32 = 6u; // of 16 dimensions
const SCORE_LINE: u32 = KEYS / 4u + 1u; // one vector of f32 (16 bytes) more
const NOTHING: f32 = -3.0e38;
const LOWEST: f32 = -1.0e38; // above NOTHING, so that 2^(NOTHING - LOWEST) is 0; below every score
const LOG2_E: f32 = 1.442695;
const SLACK: f32 = 8.0;
const LARGEST: vec4<f32> = vec4<f32>(65504.0);

var<workgroup> found: vec4<u32>; // of the tile: its first row, its rows, its place in `kv`, position of its first row
var<workgroup> tile_kv: array<vec4<f16>, max(KEYS * PITCH, QUERIES * QUERY_PITCH)>; // keys or values, [KEYS, QUADS]
var<workgroup> scores: array<vec4<f32>, QUERIES * SCORE_LINE>; // [QUERIES, KEYS / 4], and [QUERIES, 4] of the results
var<workgroup> tile_weights: array<array<array<vec4<f16>, 2>, WEIGHT_GROUPS>, QUERIES>; // [QUERIES, KEYS / 8]
var<workgroup> grown: vec4<u32>; // of each subgroup: whether a score is more than SLACK above its `top`

fn attend(index: u32, local: u32) {
    let share = n.heads / n.kv_heads; // query heads of one KV head
    let head_tiles = (share + TILE_HEADS - 1u) / TILE_HEADS;
    let kv_head = index / head_tiles % n.kv_heads;
    let first_head = kv_head * share + index % head_tiles * TILE_HEADS;
    let end_head = (kv_head + 1u) * share;
    // Cooperative matrices need control flow that is the same for all threads, as the compiler can see: so the loop's
    // bounds come from workgroup memory.
    if local == 0u {
        let tile = tile_of(index / head_tiles / n.kv_heads, QUERIES / TILE_HEADS);
        let slot = tile.slot - n.first_slot;
        let rows = select(0u, tile.rows, slot < n.slots);
        found = vec4<u32>(tile.first, rows, slot, batch.row[tile.first].position);
    }
    let tile = workgroupUniformLoad(&found);
    let first = tile.x;
    let rows = tile.y;
    let position = tile.w;
    if rows == 0u {
        return;
    }
    let from_key = position - min(position, n.window);
    let to_key = position + rows;
    let all_from = to_key - 1u - min(to_key - 1u, n.window);
    // The first quad of this KV head's key at position 0. A value is `to_values` quads behind its key, and positions
    // are `step` quads apart.
    let to_values = n.kv_heads * QUADS;
    let step = 2u * to_values;
    let base = tile.z * n.positions * step + kv_head * QUADS;

    let subgroup = local / 32u;
    // In the softmax: the thread's query, and which quads of scores it takes.
    let query = local / 32u * 16u + local % 16u;
    let part = local / 16u % 2u;
    // Queries beyond the tile's rows and heads repeat the last ones. Their results are not stored. A thread loads the same four
    // dimensions of every 16 of two queries, and they get into matrices 16 dimensions at a time.
    //#for I in 2
    let row_#I = min((local / 4u + #Iu * QUERIES / 2u) / TILE_HEADS, rows - 1u);
    let head_#I = min(first_head + (local / 4u + #Iu * QUERIES / 2u) % TILE_HEADS, end_head - 1u);
    let query_at_#I = ((first + row_#I) * (n.heads + 2u * n.kv_heads) + head_#I) * QUADS + local % 4u;
    //#for S in SLICES
    let q_#I_#S = qkv[query_at_#I + 4u * #Su] * (n.scale * LOG2_E);
    //#end
    //#end
    //#for S in SLICES
    workgroupBarrier();
    //#for I in 2
    tile_kv[(local / 4u + #Iu * QUERIES / 2u) * QUERY_PITCH + local % 4u] = vec4<f16>(clamp(q_#I_#S, -LARGEST, LARGEST));
    //#end
    workgroupBarrier();
    let query_#S = coopLoadT<coop_mat16x16<f16, A>>(&tile_kv[subgroup * 16u * QUERY_PITCH], QUERY_PITCH);
    var sum_#S = coop_mat16x16<f32, C>();
    //#end
    let query_position = position + min(query / TILE_HEADS, rows - 1u);
    var top = LOWEST;
    var total = 0.0; // of the weights that this thread computed

    // The quads of the next keys and values that this thread loads, while the workgroup computes with the current ones.
    //#for S in SLICES
    let line_#S = (local + #Su * WG) / QUADS;
    let quad_#S = (local + #Su * WG) % QUADS;
    let from_#S = base + min(from_key + line_#S, to_key - 1u) * step + quad_#S;
    var next_key_#S = kv[from_#S];
    var next_value_#S = kv[from_#S + to_values];
    //#end
    for (var start = from_key; start < to_key; start += KEYS) {
        workgroupBarrier();
        //#for S in SLICES
        tile_kv[line_#S * PITCH + quad_#S] = vec4<f16>(kv_unpack(next_key_#S));
        //#end
        workgroupBarrier();
        //#for S in SLICES
        let at_#S = base + min(start + KEYS + line_#S, to_key - 1u) * step + quad_#S;
        next_key_#S = kv[at_#S];
        //#end
        //#for K in 2
        var score_#K = coop_mat16x16<f32, C>();
        //#for S in SLICES
        // Keys are rows in workgroup memory, and are read as columns.
        let key_#K_#S = coopLoad<coop_mat16x16<f16, B>>(&tile_kv[16u * #Ku * PITCH + 4u * #Su], PITCH);
        score_#K = coopMultiplyAdd(query_#S, key_#K_#S, score_#K);
        //#end
        coopStoreT(score_#K, &scores[subgroup * 16u * SCORE_LINE + 4u * #Ku], SCORE_LINE);
        //#end
        workgroupBarrier();
        //#for S in SLICES
        tile_kv[line_#S * PITCH + quad_#S] = vec4<f16>(kv_unpack(next_value_#S));
        next_value_#S = kv[at_#S + to_values];
        //#end
        //#for I in 4
        var score_of_#I = scores[query * SCORE_LINE + 2u * #Iu + part];
        //#end
        // All queries of the tile see keys from `all_from` up to `position`.
        if start < all_from || start + KEYS > position + 1u {
            //#for I in 4
            let key_#I = vec4<u32>(start + 8u * #Iu + 4u * part) + vec4<u32>(0u, 1u, 2u, 3u);
            // For keys after the query's position the difference wraps around, and is not used.
            let recent_#I = vec4<u32>(query_position) - key_#I <= vec4<u32>(n.window);
            let seen_#I = (key_#I <= vec4<u32>(query_position)) & recent_#I;
            score_of_#I = select(vec4<f32>(NOTHING), score_of_#I, seen_#I);
            //#end
        }
        var most = NOTHING;
        //#for I in 4
        most = max(most, max(max(score_of_#I.x, score_of_#I.y), max(score_of_#I.z, score_of_#I.w)));
        //#end
        most = max(most, subgroupShuffleXor(most, 16u));
        let grows = most > top + SLACK;
        let some_grow = subgroupAny(grows);
        if local % 32u == 0u {
            grown[subgroup] = u32(some_grow);
        }
        let any_grow = workgroupUniformLoad(&grown);
        if (any_grow.x | any_grow.y | any_grow.z | any_grow.w) != 0u {
            let next = select(top, most, grows);
            let less = exp2(top - next);
            top = next;
            total *= less;
            //#for S in SLICES
            workgroupBarrier();
            coopStoreT(sum_#S, &scores[subgroup * 16u * SCORE_LINE], SCORE_LINE);
            workgroupBarrier();
            scores[query * SCORE_LINE + 2u * part] *= less;
            scores[query * SCORE_LINE + 2u * part + 1u] *= less;
            workgroupBarrier();
            sum_#S = coopLoadT<coop_mat16x16<f32, C>>(&scores[subgroup * 16u * SCORE_LINE], SCORE_LINE);
            //#end
        }
        //#for I in 4
        let weight_#I = vec4<f16>(exp2(score_of_#I - top));
        tile_weights[query][#I][part] = weight_#I;
        // As they are rounded, because so they are multiplied by the values.
        total += dot(vec4<f32>(weight_#I), vec4<f32>(1.0));
        //#end
        workgroupBarrier();
        //#for K in 2
        let weights_#K = coopLoadT<coop_mat16x16<f16, A>>(&tile_weights[subgroup * 16u][2 * #K][0], 2u * WEIGHT_GROUPS);
        //#for S in SLICES
        let value_#K_#S = coopLoadT<coop_mat16x16<f16, B>>(&tile_kv[16u * #Ku * PITCH + 4u * #Su], PITCH);
        sum_#S = coopMultiplyAdd(weights_#K, value_#K_#S, sum_#S);
        //#end
        //#end
    }
    total += subgroupShuffleXor(total, 16u);
    let stored = query / TILE_HEADS < rows && first_head + query % TILE_HEADS < end_head;
    let place = ((first + query / TILE_HEADS) * n.heads + first_head + query % TILE_HEADS) * QUADS + 2u * part;
    //#for S in SLICES
    workgroupBarrier();
    coopStoreT(sum_#S, &scores[subgroup * 16u * SCORE_LINE], SCORE_LINE);
    workgroupBarrier();
    if stored {
        y[place + 4u * #Su] = packed(scores[query * SCORE_LINE + 2u * part] / total);
        y[place + 4u * #Su + 1u] = packed(scores[query * SCORE_LINE + 2u * part + 1u] / total);
    }
    //#end
}
