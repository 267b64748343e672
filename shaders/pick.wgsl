// Token choice (spec 6): one workgroup per segment.
//
// A token is drawn by the Gumbel-max trick: the largest l + T * gumbel wins, where l is the logit after the
// repetition penalty, T the temperature and gumbel a number that depends on seed, position and token alone.
// T = 0 is the largest logit. Both take one pass over the logits. Filters come down to one number: tokens
// with l >= cut may win. No sorting: the cut is found sixteen thresholds at a time, eight passes for each of
// top-k and top-p.
struct Numbers {
    rows: u32,
    vocab: u32,
    slots: u32,
}

// How a slot samples; the order of Sampling::words in core/src/sampling.rs.
struct Sampling {
    temperature: f32,
    top_k: u32,
    top_p: f32,
    min_p: f32,
    penalty: f32,
    seed_low: u32,
    seed_high: u32,
    inverse_penalty: f32,
}

// What a workgroup is about; the same for all its threads.
struct Choice {
    wanted: u32,
    logits: u32, // where its logits begin
    seen: u32, // where its slot's bits begin
    slot: u32,
    first: u32, // its segment's first row
    rows: u32,
    position: u32, // of its segment's last row
    how: Sampling,
}

// The best token of some. Keys order like the values they stand for; 0 is below all of them.
struct Candidate {
    key: u32,
    token: u32,
}

// Sixteen keys, ascending.
struct Thresholds {
    a: vec4<u32>,
    b: vec4<u32>,
    c: vec4<u32>,
    d: vec4<u32>,
}

// What the tokens at or above each of them weigh together.
struct Weights {
    a: vec4<f32>,
    b: vec4<f32>,
    c: vec4<f32>,
    d: vec4<f32>,
}

@group(0) @binding(0) var<uniform> n: Numbers;
@group(0) @binding(1) var<storage, read_write> batch: Batch;
@group(0) @binding(2) var<storage, read> logits: array<f32>; // [rows, vocab], a row for each segment
@group(0) @binding(3) var<storage, read> sampling: array<vec4<u32>>; // [slots, 2] of 4 words: a Sampling
@group(0) @binding(4) var<storage, read_write> seen: array<u32>; // [slots, ceil(vocab / 32)], a bit per token
@group(0) @binding(5) var<storage, read_write> picked: array<u32>; // [slots]

var<workgroup> chosen: Choice;
var<workgroup> candidates: array<Candidate, WG>;
var<workgroup> group_sums: array<Weights, WG / 4u>;

// Written instead of a token where a logit is NaN or +inf, or none is finite.
const NOT_FINITE: u32 = 0xffffffffu;
// Not a candidate: past the end of the vocabulary, or masked by the model.
const NOTHING: f32 = -0x1.fffffep127f;
// The f32 above it: the cut that lets every candidate pass.
const LOWEST: f32 = -0x1.fffffcp127f;

// Unsigned integers in the order of the floats; -0 and +0 are the same one.
fn key_of(v: vec4<f32>) -> vec4<u32> {
    let bits = bitcast<vec4<u32>>(v);
    return select(bits | vec4<u32>(0x80000000u), vec4<u32>() - bits, bits >= vec4<u32>(0x80000000u));
}
const INFINITY_KEY: u32 = 0xff800000u;
const MINUS_INFINITY_KEY: u32 = 0x00800000u;

fn value_of(key: u32) -> f32 {
    return bitcast<f32>(select(0u - key, key & 0x7fffffffu, key >= 0x80000000u));
}

fn logit(c: Choice, token: u32) -> f32 {
    let at = min(token, n.vocab - 1u);
    var l = logits[c.logits + at];
    if c.how.penalty != 1.0 {
        let bit = (seen[c.seen + at / 32u] >> (at % 32u)) & 1u;
        let penalised = l * select(c.how.penalty, c.how.inverse_penalty, l > 0.0);
        l = select(l, penalised, bit == 1u);
    }
    return select(NOTHING, l, token < n.vocab);
}

// Four logits of one thread, so that four loads are under way: those of `token`, `token` + WG, ...
fn four_logits(c: Choice, token: u32) -> vec4<f32> {
    return vec4<f32>(
        logit(c, token),
        logit(c, token + WG),
        logit(c, token + 2u * WG),
        logit(c, token + 3u * WG),
    );
}

// 32 random bits for each of four tokens: the last word of pcg4d(token, seed_low, seed_high, position).
// Jarzynski and Olano, "Hash Functions for GPU Rendering", Journal of Computer Graphics Techniques 9(3), 2020.
fn random(c: Choice, token: vec4<u32>) -> vec4<u32> {
    let m = 1664525u;
    let a = 1013904223u;
    var x = token * m + a;
    var y = vec4<u32>(c.how.seed_low * m + a);
    var z = vec4<u32>(c.how.seed_high * m + a);
    var w = vec4<u32>(c.position * m + a);
    x += y * w;
    y += z * x;
    z += x * y;
    w += y * z;
    let halves = vec4<u32>(16u);
    x ^= x >> halves;
    y ^= y >> halves;
    z ^= z >> halves;
    w ^= w >> halves;
    x += y * w;
    y += z * x;
    z += x * y;
    w += y * z;
    return w;
}

// -ln(-ln(1 - v)) for v = (bits + 1/2) / 2^32. What wins has a small v, and for it WGSL promises too little of
// log(1 - v), which is near log(1): the series of it keeps every bit of v.
fn gumbel(bits: vec4<u32>) -> vec4<f32> {
    let v = min((vec4<f32>(bits) + 0.5) * 2.3283064e-10, vec4<f32>(0.99999994));
    let series = v * (1.0 + v * (0.5 + v * (0.33333334 + v * (0.25 + v * 0.2))));
    return -log(select(-log(1.0 - v), series, v < vec4<f32>(0.0625)));
}

fn better(a: Candidate, b: Candidate) -> Candidate {
    if b.key > a.key || (b.key == a.key && b.token < a.token) {
        return b;
    }
    return a;
}

// `best` or one of the four tokens from `token` on, whichever is better at this temperature.
fn best_of_four(best: Candidate, c: Choice, token: u32, temperature: f32, cut: f32) -> Candidate {
    let tokens = token + vec4<u32>(0u, WG, 2u * WG, 3u * WG);
    let l = four_logits(c, token);
    let keys = key_of(l);
    if any(keys >= vec4<u32>(INFINITY_KEY)) || any(keys < vec4<u32>(MINUS_INFINITY_KEY)) {
        return Candidate(0xffffffffu, NOT_FINITE);
    }
    var scores = l;
    if temperature > 0.0 {
        scores += temperature * gumbel(random(c, tokens));
    }
    let in_order = select(vec4<u32>(), key_of(scores), l >= vec4<f32>(cut));
    var found = best;
    if in_order.x > found.key {
        found = Candidate(in_order.x, tokens.x);
    }
    if in_order.y > found.key {
        found = Candidate(in_order.y, tokens.y);
    }
    if in_order.z > found.key {
        found = Candidate(in_order.z, tokens.z);
    }
    if in_order.w > found.key {
        found = Candidate(in_order.w, tokens.w);
    }
    return found;
}

// The best of all tokens with l >= cut; the lowest of equal ones. Called by every thread.
fn best_of_all(c: Choice, temperature: f32, cut: f32, local: u32) -> Candidate {
    var best = Candidate(0u, NOT_FINITE);
    for (var token = local; token < n.vocab; token += 8u * WG) {
        best = best_of_four(best, c, token, temperature, cut);
        best = best_of_four(best, c, token + 4u * WG, temperature, cut);
    }
    workgroupBarrier();
    candidates[local] = best;
    for (var step = WG / 4u; step > 0u; step = step / 4u) {
        workgroupBarrier();
        if local < step {
            let p = better(candidates[local], candidates[local + step]);
            let q = better(candidates[local + 2u * step], candidates[local + 3u * step]);
            candidates[local] = better(p, q);
        }
    }
    workgroupBarrier();
    return candidates[0];
}

fn add(sums: Weights, at: Thresholds, key: u32, weight: f32) -> Weights {
    let none = vec4<f32>();
    let w = vec4<f32>(weight);
    let k = vec4<u32>(key);
    return Weights(
        sums.a + select(none, w, k >= at.a),
        sums.b + select(none, w, k >= at.b),
        sums.c + select(none, w, k >= at.c),
        sums.d + select(none, w, k >= at.d),
    );
}

fn plus(p: Weights, q: Weights) -> Weights {
    return Weights(p.a + q.a, p.b + q.b, p.c + q.c, p.d + q.d);
}

// The sum over all threads, added in the same order on every device, so that all draw the same line.
fn total(mine: Weights, local: u32) -> Weights {
    for (var turn = 0u; turn < 4u; turn++) {
        workgroupBarrier();
        if local % 4u == turn {
            let at = local / 4u;
            if turn == 0u {
                group_sums[at] = mine;
            } else {
                group_sums[at] = plus(group_sums[at], mine);
            }
        }
    }
    for (var step = WG / 16u; step > 0u; step = step / 4u) {
        workgroupBarrier();
        if local < step {
            let p = plus(group_sums[local], group_sums[local + step]);
            let q = plus(group_sums[local + 2u * step], group_sums[local + 3u * step]);
            group_sums[local] = plus(p, q);
        }
    }
    workgroupBarrier();
    return group_sums[0];
}

fn count(v: vec4<bool>) -> u32 {
    let ones = select(vec4<u32>(), vec4<u32>(1u), v);
    return ones.x + ones.y + ones.z + ones.w;
}

// The cut of top-k or top-p among the tokens with l >= floor. Both drop a token if those above it weigh more
// than a budget: k - 1 where each weighs 1 (top-k), top_p of the whole where each weighs its probability.
// So the lowest token kept has the largest key at which "this one and all above" weigh more than the budget;
// it is found four bits a pass, from the top. Equal logits are kept or dropped together.
fn cut_at(c: Choice, by_mass: bool, top: f32, floor: f32, local: u32) -> f32 {
    let sharpness = 1.0 / c.how.temperature;
    var budget = f32(c.how.top_k) - 1.0;
    var key = 0u;
    for (var turn = 0u; turn < 8u; turn++) {
        let shift = 28u - 4u * turn;
        let steps = vec4<u32>(0u, 1u, 2u, 3u);
        let at = Thresholds(
            key + (steps << vec4<u32>(shift)),
            key + ((steps + 4u) << vec4<u32>(shift)),
            key + ((steps + 8u) << vec4<u32>(shift)),
            key + ((steps + 12u) << vec4<u32>(shift)),
        );
        var sums = Weights();
        for (var token = local; token < n.vocab; token += 4u * WG) {
            let l = four_logits(c, token);
            var weights = vec4<f32>(1.0);
            if by_mass {
                weights = exp(max((l - top) * sharpness, vec4<f32>(-100.0)));
            }
            weights = select(vec4<f32>(), weights, l >= vec4<f32>(floor));
            let keys = key_of(l);
            sums = add(sums, at, keys.x, weights.x);
            sums = add(sums, at, keys.y, weights.y);
            sums = add(sums, at, keys.z, weights.z);
            sums = add(sums, at, keys.w, weights.w);
        }
        sums = total(sums, local);
        if by_mass && turn == 0u {
            budget = c.how.top_p * sums.a.x;
        }
        let b = vec4<f32>(budget);
        let digit = count(sums.a > b) + count(sums.b > b) + count(sums.c > b) + count(sums.d > b);
        key += (max(digit, 1u) - 1u) << shift;
    }
    return max(value_of(max(key, MINUS_INFINITY_KEY + 1u)), LOWEST);
}

fn sampling_of(slot: u32) -> Sampling {
    let a = sampling[2u * slot];
    let b = sampling[2u * slot + 1u];
    return Sampling(
        bitcast<f32>(a.x),
        a.y,
        bitcast<f32>(a.z),
        bitcast<f32>(a.w),
        bitcast<f32>(b.x),
        b.y,
        b.z,
        bitcast<f32>(b.w),
    );
}

fn choice(index: u32) -> Choice {
    let segment = batch.segment[index];
    let wanted = index < n.rows && index < batch.segments && segment.pick == 1u && segment.slot < n.slots;
    let slot = select(0u, segment.slot, wanted);
    return Choice(
        u32(wanted),
        index * n.vocab,
        slot * ((n.vocab + 31u) / 32u),
        slot,
        segment.first,
        segment.rows,
        batch.row[segment.first + segment.rows - 1u].position,
        sampling_of(slot),
    );
}

@compute @workgroup_size(WG)
fn pick(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    if local == 0u {
        chosen = choice(group.x);
    }
    let c = workgroupUniformLoad(&chosen);
    if c.wanted == 0u {
        return;
    }
    let how = c.how;
    let by_count = how.top_k > 0u && how.top_k < n.vocab;
    var cut = LOWEST;
    if how.temperature > 0.0 && (by_count || how.top_p < 1.0 || how.min_p > 0.0) {
        let top = value_of(best_of_all(c, 0.0, LOWEST, local).key);
        if by_count {
            cut = cut_at(c, false, top, LOWEST, local);
        }
        if how.top_p < 1.0 {
            cut = cut_at(c, true, top, cut, local);
        }
        if how.min_p > 0.0 {
            // exp((l - top) / T) >= min_p; the log of 1 may come out above 0.
            cut = max(cut, top + min(how.temperature * log(how.min_p), 0.0));
        }
    }
    let token = best_of_all(c, how.temperature, cut, local).token;
    if local == 0u {
        picked[c.slot] = token;
        if token != NOT_FINITE {
            seen[c.seen + token / 32u] |= 1u << (token % 32u);
        }
        if c.rows == 1u {
            batch.row[c.first].position = c.position + 1u;
            batch.row[c.first].token = PICKED;
        }
    }
}
