// Causal attention of one tile of queries over a range of keys, with a running softmax: shared by the prefill
// and the decode kernel. A workgroup of WG threads holds QUERIES queries of one KV head in shared memory and
// walks over KEYS keys at a time. Query q of the tile is row `q / TILE_HEADS` and head `q % TILE_HEADS` of it.
// Needs const WG, QUERIES, KEYS, HEAD_DIM, TILE_HEADS with QUERIES * KEYS = WG.
const QUADS: u32 = HEAD_DIM / 4u;
const LINE: u32 = QUADS + 1u; // one more than needed: neighbouring keys lie in different banks
const SHARE: u32 = (QUERIES * QUADS + WG - 1u) / WG; // output quads per thread
const NOTHING: f32 = -3.0e38;

var<workgroup> tile_q: array<vec4<f32>, QUERIES * QUADS>;
var<workgroup> tile_kv: array<vec4<f32>, KEYS * LINE>;
var<workgroup> tile_p: array<f32, WG>; // scores, then weights, [QUERIES, KEYS]
var<workgroup> top: array<f32, QUERIES>; // running maximum
var<workgroup> shrink: array<f32, QUERIES>; // exp(old maximum - new maximum)

struct Attended {
    sum: array<vec4<f32>, SHARE>, // weighted values of this thread's output quads
    weight: array<f32, SHARE>, // sum of weights of their queries
}

// Index of a key's first quad in `kv` [slots, positions, k | v, kv_heads, head_dim].
fn key_at(slot: u32, position: u32, kv_head: u32) -> u32 {
    return (((slot * n.positions + position) * 2u) * n.kv_heads + kv_head) * QUADS;
}

// Keys `from .. to` of a slot; the query's position is `position + q / TILE_HEADS` and it sees keys up to there,
// and with a window those at most `window` steps back.
fn attend(slot: u32, kv_head: u32, position: u32, from_key: u32, to_key: u32, local: u32) -> Attended {
    var out: Attended;
    let query = local / KEYS;
    let query_position = position + query / TILE_HEADS;
    if local < QUERIES {
        top[local] = NOTHING;
    }
    for (var start = from_key; start < to_key; start += KEYS) {
        workgroupBarrier();
        for (var i = local; i < KEYS * QUADS; i += WG) {
            let key = start + i / QUADS;
            if key < to_key {
                tile_kv[i / QUADS * LINE + i % QUADS] = kv_unpack(kv[key_at(slot, key, kv_head) + i % QUADS]);
            }
        }
        workgroupBarrier();
        // Scores: one (query, key) for every thread.
        let key = start + local % KEYS;
        var score = NOTHING;
        if key < to_key && key <= query_position && (n.window == 0u || key + n.window >= query_position) {
            var sum = vec4<f32>();
            for (var d = 0u; d < QUADS; d++) {
                sum = fma(tile_q[query * QUADS + d], tile_kv[local % KEYS * LINE + d], sum);
            }
            score = (sum.x + sum.y + sum.z + sum.w) * n.scale;
        }
        tile_p[local] = score;
        workgroupBarrier();
        // The tile's maximum, and the weights under it.
        let before = top[query];
        var now = before;
        for (var k = 0u; k < KEYS; k++) {
            now = max(now, tile_p[query * KEYS + k]);
        }
        var weight = 0.0;
        if score > NOTHING {
            weight = exp(score - now);
        }
        workgroupBarrier();
        tile_p[local] = weight;
        if local % KEYS == 0u {
            top[query] = now;
            shrink[query] = exp(before - now);
        }
        for (var i = local; i < KEYS * QUADS; i += WG) {
            let key = start + i / QUADS;
            var value = vec4<f32>();
            if key < to_key {
                value = kv_unpack(kv[key_at(slot, key, kv_head) + n.kv_heads * QUADS + i % QUADS]);
            }
            tile_kv[i / QUADS * LINE + i % QUADS] = value;
        }
        workgroupBarrier();
        for (var j = 0u; j < SHARE; j++) {
            let i = local + j * WG;
            let q = min(i / QUADS, QUERIES - 1u);
            var sum = out.sum[j] * shrink[q];
            var total = out.weight[j] * shrink[q];
            for (var k = 0u; k < KEYS; k++) {
                let p = tile_p[q * KEYS + k];
                sum = fma(vec4<f32>(p), tile_kv[k * LINE + i % QUADS], sum);
                total += p;
            }
            out.sum[j] = sum;
            out.weight[j] = total;
        }
    }
    workgroupBarrier();
    return out;
}
