// One decode step of attention in one dispatch: qk norm, rotary embedding, the write of the new key and value, and
// attention over a share of the keys (spec 3.3). Every row is a segment of its own. There is one workgroup per row, KV
// head and split, for all QUERIES query heads of that KV head. attention_join joins the results of the splits. A split
// has at least LEAST keys, so in a short context the last splits are empty and end at once. The new key is not read
// back from memory: it is the first key of split 0, before it is rounded to f16. (Some drivers leave out a rounding
// that is undone at once.)
//
// A workgroup is TEAMS teams of LANES threads. A team takes KEYS keys at a time. A lane holds SHARE quads
// (four-vectors) of each key, which are LANES apart, so that neighbouring lanes read neighbouring quads. Keys are
// loaded into registers directly, and the next keys are loaded while these are in use. Each team has running sums of
// its own, which are merged at the end.
struct Numbers {
    heads: u32,
    kv_heads: u32,
    head_dim: u32,
    slots: u32,
    first_slot: u32,
    positions: u32,
    window: u32,
    qk_norm: u32,
    scale: f32,
    eps: f32,
}

@group(0) @binding(0) var<uniform> n: Numbers;
@group(0) @binding(1) var<storage, read> batch: Batch;
@group(0) @binding(2) var<storage, read> rotary: array<vec4<f32>>; // [positions, head_dim / 8, 2, 4]
@group(0) @binding(3) var<storage, read> norms: array<vec4<f32>>; // [q | k, head_dim]
@group(0) @binding(4) var<storage, read> qkv: array<vec4<f32>>; // [rows, q: heads | k: kv_heads | v: kv_heads, head_dim], as projected
@group(0) @binding(5) var<storage, read_write> kv: array<Kv4>; // [slots, positions, k | v, kv_heads, head_dim]
@group(0) @binding(6) var<storage, read_write> y: array<vec4<f32>>; // [rows, heads, SPLITS, head_dim], nothing for empty splits; normalised where SPLITS is 1
@group(0) @binding(7) var<storage, read_write> weights: array<vec2<f32>>; // [rows, heads, SPLITS]: maximum in powers of two, sum; sum 0 for empty splits

const QUADS: u32 = HEAD_DIM / 4u;
const HALF: u32 = QUADS / 2u;
const LOG2_E: f32 = 1.4426950408889634;
// NOTHING is the maximum before the first key. MASKED is the score of a key that does not exist, whose weight is 0 even
// under NOTHING.
const NOTHING: f32 = -1.0e30;
const MASKED: f32 = -3.0e38;

// First the prepared heads: queries | new key | new value, [QUERIES + 2, QUADS]. Later the sums of the teams.
var<workgroup> room: array<vec4<f32>, ROOM>;
var<workgroup> ends: array<vec2<f32>, TEAMS * QUERIES>; // [TEAMS, QUERIES]: maximum, sum of weights
var<workgroup> whole: array<vec2<f32>, QUERIES>; // maximum and sum of weights over all teams

// The first quad of a head in the new row.
fn line_of(row: u32, head: u32) -> u32 {
    return (row * (n.heads + 2u * n.kv_heads) + head) * QUADS;
}

// The first quad of a key. Its value is n.kv_heads heads further on.
fn key_at(slot: u32, position: u32, kv_head: u32) -> u32 {
    return (((slot * n.positions + position) * 2u) * n.kv_heads + kv_head) * QUADS;
}

@compute @workgroup_size(WG)
fn attention_step(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let index = group_index(group, groups);
    let split = index % SPLITS;
    let kv_head = index / SPLITS % n.kv_heads;
    let r = index / SPLITS / n.kv_heads;
    if r >= batch.rows {
        return;
    }
    let row = batch.row[r];
    let slot = row.slot - n.first_slot;
    if slot >= n.slots {
        return;
    }
    let first_head = r * n.heads + kv_head * QUERIES; // index among the heads of all rows
    // This split's share of the keys before the new one.
    let oldest = row.position - min(row.position, n.window);
    let keys = row.position - oldest;
    let per_split = max(LEAST, (keys + SPLITS - 1u) / SPLITS);
    let from_key = oldest + min(split * per_split, keys);
    let to_key = oldest + min(split * per_split + per_split, keys);
    if split > 0u && from_key == to_key {
        for (var q = local; q < QUERIES; q += WG) {
            weights[(first_head + q) * SPLITS + split] = vec2<f32>();
        }
        return;
    }
    let team = local / LANES;
    let lane = local % LANES;
    let value_at = n.kv_heads * QUADS;
    //#for S in SHARE
    let inside_#S = lane + #Su * LANES < QUADS;
    let quad_#S = min(lane + #Su * LANES, QUADS - 1u);
    //#end

    // The loads of the first keys and values run while queries are prepared. Beyond the last key, that key is read
    // again. If there is no key, what is read is not used.
    let last = max(to_key, 1u) - 1u;
    //#for K in KEYS
    let first_#K = key_at(slot, min(from_key + #Ku * TEAMS + team, last), kv_head);
    //#for S in SHARE
    var next_k_#K_#S = kv[first_#K + quad_#S];
    var next_v_#K_#S = kv[first_#K + value_at + quad_#S];
    //#end
    //#end

    // Prepares the queries, scaled so that weights are powers of two, and in split 0 the new key. Each team prepares
    // one head.
    for (var first = 0u; first < select(QUERIES, QUERIES + 1u, split == 0u); first += TEAMS) {
        let head = min(first + team, QUERIES);
        let is_key = head == QUERIES;
        let line = line_of(r, select(kv_head * QUERIES + head, n.heads + kv_head, is_key));
        //#for P in PAIRS
        let pair_#P = min(lane + #Pu * LANES, HALF - 1u);
        var pairs_#P = Pairs(qkv[line + pair_#P], qkv[line + pair_#P + HALF]);
        //#end
        if n.qk_norm == 1u {
            var squares = 0.0;
            //#for P in PAIRS
            if lane + #Pu * LANES < HALF {
                squares += dot(pairs_#P.low, pairs_#P.low) + dot(pairs_#P.high, pairs_#P.high);
            }
            //#end
            let rms = sqrt(team_sum(squares, local) / f32(HEAD_DIM) + n.eps);
            let w = select(0u, QUADS, is_key);
            //#for P in PAIRS
            pairs_#P = Pairs(pairs_#P.low / rms * norms[w + pair_#P], pairs_#P.high / rms * norms[w + pair_#P + HALF]);
            //#end
        }
        //#for P in PAIRS
        if lane + #Pu * LANES < HALF && first + team <= QUERIES {
            var v = rotate(pairs_#P, row.position, pair_#P);
            if !is_key {
                v = Pairs(v.low * (n.scale * LOG2_E), v.high * (n.scale * LOG2_E));
            } else if split == 0u {
                let at = key_at(slot, row.position, kv_head) + pair_#P;
                kv[at] = kv_pack(v.low);
                kv[at + HALF] = kv_pack(v.high);
            }
            room[head * QUADS + pair_#P] = v.low;
            room[head * QUADS + pair_#P + HALF] = v.high;
        }
        //#end
    }
    if split == 0u {
        for (var i = local; i < QUADS; i += WG) {
            let value = qkv[line_of(r, n.heads + n.kv_heads + kv_head) + i];
            kv[key_at(slot, row.position, kv_head) + value_at + i] = kv_pack(value);
            room[(QUERIES + 1u) * QUADS + i] = value;
        }
    }
    workgroupBarrier();
    //#for Q in QUERIES
    var top_#Q = NOTHING;
    var weight_#Q = 0.0;
    //#for S in SHARE
    let q_#Q_#S = select(vec4<f32>(), room[#Qu * QUADS + quad_#S], inside_#S);
    var sum_#Q_#S = vec4<f32>();
    //#end
    //#end

    // In split 0, the first team begins with the new key, whose weight under its own score is 1.
    if split == 0u {
        //#for Q in QUERIES
        var new_#Q = 0.0;
        //#for S in SHARE
        new_#Q += dot(q_#Q_#S, room[QUERIES * QUADS + quad_#S]);
        //#end
        //#end
        let scores = team_sums(array<f32, VALUES>(
            //#for K in KEYS
            //#for Q in QUERIES
            new_#Q, // repeated KEYS times, because team_sums takes VALUES numbers; one copy is used
            //#end
            //#end
        ), local);
        if team == 0u {
            //#for Q in QUERIES
            top_#Q = scores[#Q];
            weight_#Q = 1.0;
            //#for S in SHARE
            sum_#Q_#S = room[(QUERIES + 1u) * QUADS + quad_#S];
            //#end
            //#end
        }
    }

    for (var start = from_key; start < to_key; start += TEAMS * KEYS) {
        //#for K in KEYS
        let key_#K = start + #Ku * TEAMS + team;
        let next_#K = key_at(slot, min(key_#K + TEAMS * KEYS, last), kv_head);
        //#for S in SHARE
        let k_#K_#S = kv_unpack(next_k_#K_#S);
        let v_#K_#S = kv_unpack(next_v_#K_#S);
        next_k_#K_#S = kv[next_#K + quad_#S];
        next_v_#K_#S = kv[next_#K + value_at + quad_#S];
        //#end
        //#for Q in QUERIES
        var part_#K_#Q = 0.0;
        //#for S in SHARE
        part_#K_#Q += dot(q_#Q_#S, k_#K_#S);
        //#end
        //#end
        //#end
        let scores = team_sums(array<f32, VALUES>(
            //#for K in KEYS
            //#for Q in QUERIES
            part_#K_#Q,
            //#end
            //#end
        ), local);
        //#for Q in QUERIES
        {
            var now = top_#Q;
            //#for K in KEYS
            let score_#K = select(MASKED, scores[#K * QUERIES + #Q], key_#K < to_key);
            now = max(now, score_#K);
            //#end
            let shrink = exp2(top_#Q - now);
            top_#Q = now;
            weight_#Q *= shrink;
            //#for S in SHARE
            sum_#Q_#S *= shrink;
            //#end
            //#for K in KEYS
            let p_#K = exp2(score_#K - now);
            weight_#Q += p_#K;
            //#for S in SHARE
            sum_#Q_#S = fma(vec4<f32>(p_#K), v_#K_#S, sum_#Q_#S);
            //#end
            //#end
        }
        //#end
    }

    // With one team, its sums are those of the split.
    //#for A in ALONE
    //#for Q in QUERIES
    {
        let at = (first_head + #Qu) * SPLITS + split;
        //#for S in SHARE
        if inside_#S {
            y[at * QUADS + quad_#S] = select(sum_#Q_#S, sum_#Q_#S / weight_#Q, SPLITS == 1u);
        }
        //#end
        if SPLITS > 1u && lane == 0u {
            weights[at] = vec2<f32>(top_#Q, weight_#Q);
        }
    }
    //#end
    //#end

    // With several teams: first their common maximum, then the sums under it, MERGED queries at a time.
    //#for T in TOGETHER
    if lane == 0u {
        //#for Q in QUERIES
        ends[team * QUERIES + #Qu] = vec2<f32>(top_#Q, weight_#Q);
        //#end
    }
    workgroupBarrier();
    if local < QUERIES {
        var top = NOTHING;
        //#for I in TEAMS
        let end_#I = ends[#Iu * QUERIES + local];
        top = max(top, end_#I.x);
        //#end
        var weight = 0.0;
        //#for I in TEAMS
        weight += end_#I.y * exp2(end_#I.x - top);
        //#end
        whole[local] = vec2<f32>(top, weight);
        if SPLITS > 1u {
            weights[(first_head + local) * SPLITS + split] = vec2<f32>(top, weight);
        }
    }
    workgroupBarrier();
    //#for Q in QUERIES
    {
        let scale = exp2(top_#Q - whole[#Q].x);
        //#for S in SHARE
        if inside_#S {
            room[(#Qu % MERGED * TEAMS + team) * QUADS + quad_#S] = sum_#Q_#S * scale;
        }
        //#end
    }
    if #Qu % MERGED == MERGED - 1u || #Qu == QUERIES - 1u {
        workgroupBarrier();
        for (var i = local; i < (#Qu % MERGED + 1u) * QUADS; i += WG) {
            var sum = vec4<f32>();
            //#for I in TEAMS
            sum += room[(i / QUADS * TEAMS + #Iu) * QUADS + i % QUADS];
            //#end
            let q = #Qu / MERGED * MERGED + i / QUADS;
            y[((first_head + q) * SPLITS + split) * QUADS + i % QUADS] = select(sum, sum / whole[q].y, SPLITS == 1u);
        }
        if #Qu < QUERIES - 1u {
            workgroupBarrier();
        }
    }
    //#end
    //#end
}
