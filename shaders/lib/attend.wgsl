// One tile of `attention` in f32. The workgroup takes KEYS keys at a time. A thread computes the scores of four queries with
// two keys, and then some quads (four-vectors) of the results of four queries, all in registers. Keys go through workgroup
// memory, SLICE quads of each at a time. Queries and values are read from storage buffers directly. Needs const KEYS, OUTS
// (quads of the result per thread and query), STEPS (a divisor of SLICE and KEYS) and WG = QUERIES / 4 * ACROSS.
const ACROSS: u32 = KEYS / 2u; // threads that share four queries: each takes some keys, then some quads
const SLICE: u32 = 8u;
// One more than needed, so that neighbours are in different banks.
const KEY_LINE: u32 = SLICE + 1u;
const SCORE_LINE: u32 = QUERIES / 4u + 1u;
const PARTS: u32 = WG / QUERIES; // threads that share a query's softmax
const NOTHING: f32 = -3.0e38;

var<workgroup> keys: array<vec4<f32>, KEYS * KEY_LINE>; // [KEYS, SLICE]
var<workgroup> scores: array<vec4<f32>, KEYS * SCORE_LINE>; // [KEYS, QUERIES / 4]: scores, then weights
var<workgroup> top: array<f32, QUERIES>; // running maximum of the scores
var<workgroup> shrink: array<f32, QUERIES>; // exp(old maximum - new maximum); after the loop, the sum of weights
var<workgroup> part: array<f32, WG>; // [PARTS, QUERIES]: partial maxima, then partial sums of weights

fn four(at: u32) -> vec4<f32> {
    return vec4<f32>(shrink[at], shrink[at + 1u], shrink[at + 2u], shrink[at + 3u]);
}

fn attend(index: u32, local: u32) {
    let share = n.heads / n.kv_heads; // query heads of one KV head
    let head_tiles = (share + TILE_HEADS - 1u) / TILE_HEADS;
    let kv_head = index / head_tiles % n.kv_heads;
    let first_head = kv_head * share + index % head_tiles * TILE_HEADS;
    let end_head = (kv_head + 1u) * share;
    let tile = tile_of(index / head_tiles / n.kv_heads, QUERIES / TILE_HEADS);
    let slot = tile.slot - n.first_slot;
    if tile.rows == 0u || slot >= n.slots {
        return;
    }
    let position = batch.row[tile.first].position;
    let from_key = position - min(position, n.window);
    let to_key = position + tile.rows;
    // The first quad of this KV head's key at position 0. A value is `to_values` quads behind its key, and positions
    // are `step` quads apart.
    let to_values = n.kv_heads * QUADS;
    let step = 2u * to_values;
    let base = slot * n.positions * step + kv_head * QUADS;

    let across = local % ACROSS;
    let four_queries = local / ACROSS;
    //#for Q in 4
    // Queries beyond the tile's rows and heads repeat the last ones. Their results are not stored.
    let row_#Q = min((four_queries * 4u + #Qu) / TILE_HEADS, tile.rows - 1u);
    let head_#Q = min(first_head + (four_queries * 4u + #Qu) % TILE_HEADS, end_head - 1u);
    let query_#Q = ((tile.first + row_#Q) * (n.heads + 2u * n.kv_heads) + head_#Q) * QUADS;
    //#for O in OUTS
    var sum_#Q_#O = vec4<f32>();
    //#end
    //#end
    let query_positions = position + vec4<u32>(row_0, row_1, row_2, row_3);
    // In the softmax, each thread has one query and a part of the keys.
    let query = local % QUERIES;
    let first_key = local / QUERIES * (KEYS / PARTS);
    var total = 0.0; // sum of weights, in the first QUERIES threads
    if local < QUERIES {
        top[local] = NOTHING;
    }

    for (var start = from_key; start < to_key; start += KEYS) {
        var score_0 = vec4<f32>(); // scores of four queries with key `across`
        var score_1 = vec4<f32>(); // scores of four queries with key `across + ACROSS`
        for (var slice = 0u; slice < QUADS; slice += SLICE) {
            workgroupBarrier();
            for (var i = local; i < KEYS * SLICE; i += WG) {
                let key = min(start + i / SLICE, to_key - 1u);
                let quad = slice + i % SLICE;
                // A head may end inside a slice. The rest of the slice is zero.
                let value = kv_unpack(kv[base + key * step + min(quad, QUADS - 1u)]);
                keys[i / SLICE * KEY_LINE + i % SLICE] = select(vec4<f32>(), value, quad < QUADS);
            }
            workgroupBarrier();
            for (var d = 0u; d < SLICE; d += STEPS) {
                //#for D in STEPS
                let key_#D_0 = keys[across * KEY_LINE + d + #Du];
                let key_#D_1 = keys[(across + ACROSS) * KEY_LINE + d + #Du];
                let quad_#D = min(slice + d + #Du, QUADS - 1u);
                //#for Q in 4
                let q_#D_#Q = qkv[query_#Q + quad_#D];
                score_0[#Q] += dot(q_#D_#Q, key_#D_0);
                score_1[#Q] += dot(q_#D_#Q, key_#D_1);
                //#end
                //#end
            }
        }
        //#for K in 2
        {
            let key = vec4<u32>(start + across + #Ku * ACROSS);
            // For keys after the query's position the difference wraps around, and is not used.
            let recent = query_positions - key <= vec4<u32>(n.window);
            let seen = (key <= query_positions) & (key < vec4<u32>(to_key)) & recent;
            let at = (across + #Ku * ACROSS) * SCORE_LINE + four_queries;
            scores[at] = select(vec4<f32>(NOTHING), score_#K * n.scale, seen);
        }
        //#end
        workgroupBarrier();
        // The new maximum of each query.
        let before = top[query];
        var most = before;
        for (var k = 0u; k < KEYS / PARTS; k++) {
            most = max(most, scores[(first_key + k) * SCORE_LINE + query / 4u][query % 4u]);
        }
        part[local] = most;
        workgroupBarrier();
        for (var i = 0u; i < PARTS; i++) {
            most = max(most, part[i * QUERIES + query]);
        }
        // The weights under the new maximum.
        var weights = 0.0;
        for (var k = 0u; k < KEYS / PARTS; k++) {
            let at = (first_key + k) * SCORE_LINE + query / 4u;
            let score = scores[at][query % 4u];
            let weight = select(0.0, exp(score - most), score > NOTHING);
            scores[at][query % 4u] = weight;
            weights += weight;
        }
        workgroupBarrier();
        part[local] = weights;
        if local < QUERIES {
            top[local] = most;
            shrink[local] = exp(before - most);
        }
        workgroupBarrier();
        if local < QUERIES {
            total *= shrink[local];
            for (var i = 0u; i < PARTS; i++) {
                total += part[i * QUERIES + local];
            }
        }
        // The sums of weighted values.
        let less = four(four_queries * 4u);
        //#for O in OUTS
        let quad_#O = min(across + #Ou * ACROSS, QUADS - 1u);
        //#for Q in 4
        sum_#Q_#O *= less[#Q];
        //#end
        //#end
        for (var k = 0u; k < KEYS; k += STEPS) {
            //#for K in STEPS
            let weight_#K = scores[(k + #Ku) * SCORE_LINE + four_queries];
            let value_#K = base + to_values + min(start + k + #Ku, to_key - 1u) * step;
            //#for O in OUTS
            let value_#K_#O = kv_unpack(kv[value_#K + quad_#O]);
            //#for Q in 4
            sum_#Q_#O += weight_#K[#Q] * value_#K_#O;
            //#end
            //#end
            //#end
        }
    }
    workgroupBarrier();
    if local < QUERIES {
        shrink[local] = total;
    }
    workgroupBarrier();
    let totals = four(four_queries * 4u);
    //#for Q in 4
    if (four_queries * 4u + #Qu) / TILE_HEADS < tile.rows && first_head + (four_queries * 4u + #Qu) % TILE_HEADS < end_head {
        let at = ((tile.first + row_#Q) * n.heads + head_#Q) * QUADS;
        //#for O in OUTS
        if across + #Ou * ACROSS < QUADS {
            y[at + across + #Ou * ACROSS] = packed(sum_#Q_#O / totals[#Q]);
        }
        //#end
    }
    //#end
}
