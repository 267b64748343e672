// Reduces the logits to two numbers for every block of BLOCK tokens (spec 6), from which pick chooses. This is the
// single pass over the whole vocabulary. It uses many workgroups, with 8 logits per thread.
//
// pick needs the key of a block's largest logit with all settings: it leads to the token of greedy choice, and rules
// out blocks in which no token passes a filter. `scores` has what else the settings need, see `score` in
// core/src/ops/pick_scan.rs.
struct Numbers {
    rows: u32,
    vocab: u32,
    slots: u32,
}

@group(0) @binding(0) var<uniform> n: Numbers;
@group(0) @binding(1) var<storage, read> batch: Batch;
@group(0) @binding(2) var<storage, read> logits: array<f32>; // [rows, vocab], one row for each segment
@group(0) @binding(3) var<storage, read> sampling: array<vec4<u32>>; // [slots, 2] of 4 words: a Sampling
@group(0) @binding(4) var<storage, read> seen: array<u32>; // [slots, ceil(vocab / 32)], one bit per token
@group(0) @binding(5) var<storage, read_write> maxima: array<u32>; // [rows, ceil(vocab / BLOCK)]
@group(0) @binding(6) var<storage, read_write> scores: array<f32>; // [rows, ceil(vocab / BLOCK)]

// Threads that share a block: a power of 4, because of how they add up.
const LANES: u32 = BLOCK / 8u;
const AT_A_TIME: u32 = WG / LANES;

var<workgroup> keys: array<u32, WG>;
var<workgroup> sums: array<f32, WG>;

// The largest key of all threads that share a block. Every thread calls it, and gets it.
fn largest(mine: vec4<u32>, local: u32) -> u32 {
    workgroupBarrier();
    keys[local] = max(max(mine.x, mine.y), max(mine.z, mine.w));
    for (var step = LANES / 4u; step > 0u; step = step / 4u) {
        workgroupBarrier();
        if local % LANES < step {
            let p = max(keys[local], keys[local + step]);
            keys[local] = max(p, max(keys[local + 2u * step], keys[local + 3u * step]));
        }
    }
    workgroupBarrier();
    return keys[local - local % LANES];
}

// The sum over the threads that share a block, in the same order on every device.
fn sum(mine: vec4<f32>, local: u32) -> f32 {
    workgroupBarrier();
    sums[local] = (mine.x + mine.y) + (mine.z + mine.w);
    for (var step = LANES / 4u; step > 0u; step = step / 4u) {
        workgroupBarrier();
        if local % LANES < step {
            let p = sums[local] + sums[local + step];
            sums[local] = p + (sums[local + 2u * step] + sums[local + 3u * step]);
        }
    }
    workgroupBarrier();
    return sums[local - local % LANES];
}

@compute @workgroup_size(WG)
fn pick_scan(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let a_row = (blocks() + AT_A_TIME - 1u) / AT_A_TIME;
    let index = group_index(group, groups);
    let row = index / a_row;
    if row >= n.rows {
        return;
    }
    let block = index % a_row * AT_A_TIME + local / LANES;
    let lane = local % LANES;
    let p_tokens = block * BLOCK + lane + LANES * vec4<u32>(0u, 1u, 2u, 3u);
    let q_tokens = p_tokens + 4u * LANES;
    let p_raw = load(row * n.vocab, p_tokens);
    let q_raw = load(row * n.vocab, q_tokens);
    let c = choice(row);
    if c.wanted == 0u {
        return;
    }
    let p = penalised(c, p_tokens, p_raw);
    let q = penalised(c, q_tokens, q_raw);
    let lowest = vec4<f32>(LOWEST);
    let p_keys = select(vec4<u32>(), key_of(p), p >= lowest);
    let q_keys = select(vec4<u32>(), key_of(q), q >= lowest);
    var mine = max(p_keys, q_keys);
    if broken(key_of(p)) || broken(key_of(q)) {
        mine = vec4<u32>(BROKEN);
    }
    let top = largest(mine, local);
    var score = 0.0;
    if c.how.temperature > 0.0 {
        if !filtered(c.how) {
            let p_drawn = select(vec4<u32>(), key_of(drawn(c, p_tokens, p)), p_keys > vec4<u32>());
            let q_drawn = select(vec4<u32>(), key_of(drawn(c, q_tokens, q)), q_keys > vec4<u32>());
            score = value_of(max(largest(max(p_drawn, q_drawn), local), MINUS_INFINITY_KEY + 1u));
        } else if by_mass(c.how) && !by_count(c.how) {
            let none = vec4<f32>();
            let p_weights = select(none, weight(c.how, p, value_of(top)), p_keys > vec4<u32>());
            let q_weights = select(none, weight(c.how, q, value_of(top)), q_keys > vec4<u32>());
            score = sum(p_weights + q_weights, local);
        }
    }
    if lane == 0u && block < blocks() {
        let found = top > 0u && top < BROKEN;
        maxima[c.blocks + block] = top;
        scores[c.blocks + block] = select(0.0, score, found);
    }
}
