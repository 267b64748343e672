// The choice of a token (spec 6): one workgroup per segment.
//
// A token is chosen by the Gumbel-max trick: the largest l + T * gumbel wins. l is the logit after the repetition
// penalty, T is the temperature, and gumbel is a number that depends only on seed, position and token. With T = 0 the
// largest logit wins. pick_scan has read all logits. Without filters, its results tell which block has the token, and
// only that block is read here.
//
// All filters together amount to one number, the cut: tokens with l >= cut may be chosen. Nothing is sorted. The cut is
// searched with sixteen thresholds at a time, in a few passes for top-k and a few for top-p. Before that, the items of
// these passes are made few. The largest logit of each block belongs to a token. So the cut among these logits alone,
// with the budget of all tokens, cannot lie above the true cut: it is a floor, and blocks whose largest logit is below
// it have no token that is kept. The tokens at or above the floor in the other blocks go into a list in workgroup
// memory. If they are too many for the list, or if too few blocks are ruled out, the passes read the blocks instead.
// That takes longer and gives the same result.
struct Numbers {
    rows: u32,
    vocab: u32,
    slots: u32,
}

// The best of some tokens or blocks: the largest key, and of equal keys the lowest id. Key 0 means none.
struct Candidate {
    key: u32,
    id: u32,
}

// A token that may pass the filters, with its logit.
struct Entry {
    l: f32,
    token: u32,
}

// The items that a pass goes over: blocks or tokens, in rounds of four items per thread.
struct Source {
    kind: u32,
    count: u32, // number of blocks or tokens
    rounds: u32,
}
const MAXIMA: u32 = 0u; // the largest logit of every block
const ALL: u32 = 1u; // the tokens of all blocks
const LIVE: u32 = 2u; // the tokens of the blocks in `live`
const LISTED: u32 = 3u; // the tokens in `listed`

// Four blocks or tokens with their logits.
struct Items {
    l: vec4<f32>,
    ids: vec4<u32>,
}

// Sixteen keys in ascending order.
struct Thresholds {
    a: vec4<u32>,
    b: vec4<u32>,
    c: vec4<u32>,
    d: vec4<u32>,
}

// For each threshold, the sum of the weights of the items at or above it.
struct Weights {
    a: vec4<f32>,
    b: vec4<f32>,
    c: vec4<f32>,
    d: vec4<f32>,
}

@group(0) @binding(0) var<uniform> n: Numbers;
@group(0) @binding(1) var<storage, read_write> batch: Batch;
@group(0) @binding(2) var<storage, read> logits: array<f32>; // [rows, vocab], one row for each segment
@group(0) @binding(3) var<storage, read> maxima: array<u32>; // [rows, ceil(vocab / BLOCK)]
@group(0) @binding(4) var<storage, read> scores: array<f32>; // [rows, ceil(vocab / BLOCK)]
@group(0) @binding(5) var<storage, read> sampling: array<vec4<u32>>; // [slots, 2] of 4 words: a Sampling
@group(0) @binding(6) var<storage, read_write> seen: array<u32>; // [slots, ceil(vocab / 32)], one bit per token
@group(0) @binding(7) var<storage, read_write> picked: array<u32>; // [slots]

// The workgroup memory is 15.1 KiB in all if WG is 256.
const LIVE_ROOM: u32 = 2u * WG;
const LIST_ROOM: u32 = 3u * WG;
var<workgroup> chosen: Choice;
var<workgroup> candidates: array<Candidate, WG>;
var<workgroup> counts: array<u32, WG>;
var<workgroup> group_sums: array<Weights, WG / 4u>;
var<workgroup> live: array<u32, LIVE_ROOM>;
var<workgroup> listed: array<Entry, LIST_ROOM>;

// Written instead of a token if a logit is NaN or +inf, or if no logit is finite.
const NOT_FINITE: u32 = 0xffffffffu;
// The budget of a floor is multiplied by this, so that differences in rounding do not lift the floor above the cut.
const SLACK: f32 = 1.0001;
// Low bits of a floor's key that are not searched. A floor need not be exact: 7 bits of a fraction are enough.
const COARSE: u32 = 16u;

fn key1(v: f32) -> u32 {
    return key_of(vec4<f32>(v)).x;
}

// The indices of this thread's items in a round.
fn numbers_of(round: u32, local: u32) -> vec4<u32> {
    return 4u * WG * round + local + WG * vec4<u32>(0u, 1u, 2u, 3u);
}

// The keys of the largest logits of four blocks. 0 beyond the last block.
fn largest(c: Choice, at: vec4<u32>) -> vec4<u32> {
    let i = c.blocks + min(at, vec4<u32>(blocks() - 1u));
    let keys = vec4<u32>(maxima[i.x], maxima[i.y], maxima[i.z], maxima[i.w]);
    return select(vec4<u32>(), keys, at < vec4<u32>(blocks()));
}

fn scores_of(c: Choice, at: vec4<u32>) -> vec4<f32> {
    let i = c.blocks + min(at, vec4<u32>(blocks() - 1u));
    return vec4<f32>(scores[i.x], scores[i.y], scores[i.z], scores[i.w]);
}

fn values_of(keys: vec4<u32>) -> vec4<f32> {
    let values = vec4<f32>(value_of(keys.x), value_of(keys.y), value_of(keys.z), value_of(keys.w));
    return select(vec4<f32>(NOTHING), values, keys > vec4<u32>(MINUS_INFINITY_KEY));
}

fn entries(at: vec4<u32>, count: u32) -> Items {
    let i = min(at, vec4<u32>(LIST_ROOM - 1u));
    let x = listed[i.x];
    let y = listed[i.y];
    let z = listed[i.z];
    let w = listed[i.w];
    let l = vec4<f32>(x.l, y.l, z.l, w.l);
    return Items(select(vec4<f32>(NOTHING), l, at < vec4<u32>(count)), vec4<u32>(x.token, y.token, z.token, w.token));
}

// This thread's items in a round of a source. Their logits are NOTHING beyond its end.
fn items(c: Choice, source: Source, round: u32, local: u32) -> Items {
    if source.kind == MAXIMA {
        let at = numbers_of(round, local);
        return Items(values_of(largest(c, at)), at);
    }
    if source.kind == LISTED {
        return entries(numbers_of(round, local), source.count);
    }
    // Neighbouring threads take neighbouring tokens. BLOCK / 4 threads share a block.
    let nth = round * (4u * WG / BLOCK) + local / (BLOCK / 4u);
    var block = nth;
    if source.kind == LIVE {
        block = live[min(nth, LIVE_ROOM - 1u)];
    }
    let first = select(n.vocab, block * BLOCK + local % (BLOCK / 4u), nth < source.count);
    let tokens = first + BLOCK / 4u * vec4<u32>(0u, 1u, 2u, 3u);
    return Items(penalised(c, tokens, load(c.logits, tokens)), tokens);
}

fn source_of(kind: u32, count: u32) -> Source {
    let a_round = select(4u * WG / BLOCK, 4u * WG, kind == MAXIMA || kind == LISTED);
    return Source(kind, count, (count + a_round - 1u) / a_round);
}

fn better(a: Candidate, key: u32, id: u32) -> Candidate {
    if key > a.key || (key == a.key && id < a.id) {
        return Candidate(key, id);
    }
    return a;
}

fn best_of_four(best: Candidate, keys: vec4<u32>, ids: vec4<u32>) -> Candidate {
    let p = better(better(best, keys.x, ids.x), keys.y, ids.y);
    return better(better(p, keys.z, ids.z), keys.w, ids.w);
}

// The best candidate of all threads.
fn best_of_all(mine: Candidate, local: u32) -> Candidate {
    workgroupBarrier();
    candidates[local] = mine;
    for (var step = WG / 4u; step > 0u; step = step / 4u) {
        workgroupBarrier();
        if local < step {
            let p = candidates[local + step];
            let q = candidates[local + 2u * step];
            let r = candidates[local + 3u * step];
            candidates[local] = better(better(better(candidates[local], p.key, p.id), q.key, q.id), r.key, r.id);
        }
    }
    return workgroupUniformLoad(&candidates[0]);
}

// The block with the largest logit. Without filters and with a temperature: the block with the best random choice.
fn best_block(c: Choice, local: u32) -> Candidate {
    let by_draw = c.how.temperature > 0.0 && !filtered(c.how);
    var best = Candidate(0u, 0u);
    for (var round = 0u; round * 4u * WG < blocks(); round++) {
        let at = numbers_of(round, local);
        var keys = largest(c, at);
        if by_draw {
            let good = (keys > vec4<u32>()) & (keys < vec4<u32>(BROKEN));
            keys = select(keys, key_of(scores_of(c, at)), good);
        }
        best = best_of_four(best, keys, at);
    }
    return best_of_all(best, local);
}

// The best token of a source, of those with l >= cut.
fn best_token(c: Choice, source: Source, cut: f32, local: u32) -> u32 {
    var best = Candidate(0u, NOT_FINITE);
    for (var round = 0u; round < source.rounds; round++) {
        let found = items(c, source, round, local);
        let keys = key_of(drawn(c, found.ids, found.l));
        best = best_of_four(best, select(vec4<u32>(), keys, found.l >= vec4<f32>(cut)), found.ids);
    }
    best = best_of_all(best, local);
    return select(NOT_FINITE, best.id, best.key > 0u);
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

// The sum over all threads. It is added up in the same order on every device, so that all devices get the same cut.
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
    return workgroupUniformLoad(&group_sums[0]);
}

fn count(v: vec4<bool>) -> u32 {
    let ones = select(vec4<u32>(), vec4<u32>(1u), v);
    return ones.x + ones.y + ones.z + ones.w;
}

// The weight of all tokens, from the sums that pick_scan computed for each block.
fn whole(c: Choice, top: f32, local: u32) -> f32 {
    var sums = vec4<f32>();
    for (var round = 0u; round * 4u * WG < blocks(); round++) {
        let at = numbers_of(round, local);
        let keys = largest(c, at);
        sums += select(vec4<f32>(), scores_of(c, at) * weight(c.how, values_of(keys), top), keys > vec4<u32>());
    }
    let all = total(Weights(sums, vec4<f32>(), vec4<f32>(), vec4<f32>()), local).a;
    return (all.x + all.y) + (all.z + all.w);
}

// The cut of top-k or of top-p among the items with l >= floor. Both drop an item if the items above it weigh more than
// a budget. For top-k every item weighs 1, and the budget is k - 1. For top-p an item weighs its probability, and the
// budget is top_p of the whole. So the key of the lowest item that is kept is the largest key at which all items at or
// above it weigh more than the budget. It lies between the key of the floor and the key of the largest logit. Each pass
// finds four of its bits, from the highest down; the lowest `coarse` bits are not searched. Equal logits are kept or
// dropped together. A negative budget stands for top_p of the weight of these items.
fn cut_at(
    c: Choice,
    source: Source,
    mass: bool,
    budget_or_none: f32,
    top: f32,
    floor: f32,
    coarse: u32,
    local: u32,
) -> f32 {
    var budget = budget_or_none;
    var key = key1(floor);
    let span = key1(top) - key;
    let steps = vec4<u32>(0u, 1u, 2u, 3u);
    for (var shift = (35u - countLeadingZeros(span)) / 4u * 4u; shift > coarse;) {
        shift -= 4u;
        // A threshold beyond the last key would wrap around. It is set to the last key instead.
        let room = vec4<u32>(0xffffffffu - key);
        let at = Thresholds(
            key + min(steps << vec4<u32>(shift), room),
            key + min((steps + 4u) << vec4<u32>(shift), room),
            key + min((steps + 8u) << vec4<u32>(shift), room),
            key + min((steps + 12u) << vec4<u32>(shift), room),
        );
        var sums = Weights();
        for (var round = 0u; round < source.rounds; round++) {
            let found = items(c, source, round, local);
            var weights = vec4<f32>(1.0);
            if mass {
                weights = weight(c.how, found.l, top);
            }
            let keys = key_of(found.l);
            sums = add(sums, at, keys.x, weights.x);
            sums = add(sums, at, keys.y, weights.y);
            sums = add(sums, at, keys.z, weights.z);
            sums = add(sums, at, keys.w, weights.w);
        }
        sums = total(sums, local);
        if budget < 0.0 {
            budget = c.how.top_p * sums.a.x;
        }
        let b = vec4<f32>(budget);
        let digit = count(sums.a > b) + count(sums.b > b) + count(sums.c > b) + count(sums.d > b);
        key += (max(digit, 1u) - 1u) << shift;
    }
    return value_of(key);
}

// The sum of `mine` over the threads before this one. Afterwards counts[WG - 1] is the sum over all threads.
fn before(mine: u32, local: u32) -> u32 {
    var sum = mine;
    for (var step = 1u; step < WG; step = 4u * step) {
        workgroupBarrier();
        counts[local] = sum;
        workgroupBarrier();
        for (var back = step; back < 4u * step; back += step) {
            if local >= back {
                sum += counts[local - back];
            }
        }
    }
    workgroupBarrier();
    counts[local] = sum;
    return sum - mine;
}

fn put(kind: u32, at: u32, id: u32, l: f32) {
    if kind == MAXIMA {
        live[at] = id;
    } else {
        listed[at] = Entry(l, id);
    }
}

// The items of a source with l >= floor: of MAXIMA the blocks, as LIVE; of tokens a list, as LISTED. Their order is the
// same in every run, because sums are added in that order. If they do not fit, nothing is gathered, and the result is
// all blocks, or the same source.
fn gather(c: Choice, source: Source, floor: f32, local: u32) -> Source {
    let all_blocks = source.kind == MAXIMA;
    var mine = 0u;
    var at = 0u;
    var all = 0u;
    // The first turn counts, the second one stores.
    for (var turn = 0u; turn < 2u; turn++) {
        for (var round = 0u; round < source.rounds; round++) {
            let found = items(c, source, round, local);
            let kept = found.l >= vec4<f32>(floor);
            if turn == 0u {
                mine += count(kept);
                continue;
            }
            //#for I in 4
            if kept[#I] {
                put(source.kind, at, found.ids[#I], found.l[#I]);
                at += 1u;
            }
            //#end
        }
        if turn == 0u {
            at = before(mine, local);
            all = workgroupUniformLoad(&counts[WG - 1u]);
            if all > select(LIST_ROOM, LIVE_ROOM, all_blocks) {
                if all_blocks {
                    return source_of(ALL, blocks());
                }
                return source;
            }
        }
    }
    workgroupBarrier();
    return source_of(select(LISTED, LIVE, all_blocks), all);
}

// The tokens that the filters keep: those of a source with l >= cut.
struct Rest {
    source: Source,
    cut: f32,
}

fn filter_tokens(c: Choice, top: f32, local: u32) -> Rest {
    let how = c.how;
    var budgets = vec2<f32>(f32(how.top_k) - 1.0, -1.0);
    if by_mass(how) && !by_count(how) {
        budgets.y = how.top_p * whole(c, top, local);
    }
    var least = LOWEST;
    if how.min_p > 0.0 {
        // exp((l - top) / T) >= min_p. The log of 1 may be computed as a number above 0, so it is bounded.
        least = max(least, top + min(how.temperature * log(how.min_p), 0.0));
    }
    // The stages: a floor from the blocks, the blocks at or above it, their tokens, then the cut of top-k, then that of
    // top-p. They share one loop, because compilers copy a function to every place where it is called, and `cut_at` is
    // long.
    var source = source_of(MAXIMA, blocks());
    var cut = LOWEST;
    for (var stage = 0u; stage < 5u; stage++) {
        if stage == 1u || stage == 2u {
            source = gather(c, source, cut, local);
            continue;
        }
        let counted = stage == 3u || (stage == 0u && by_count(how));
        var on = select(by_mass(how), by_count(how), stage == 3u);
        var slack = 1.0;
        var coarse = 0u;
        if stage == 0u {
            // If top-k keeps more tokens than there are blocks, there is no floor.
            on = (by_count(how) && how.top_k <= blocks()) || budgets.y >= 0.0;
            slack = SLACK;
            coarse = COARSE;
        }
        if on {
            cut = cut_at(c, source, !counted, slack * select(budgets.y, budgets.x, counted), top, cut, coarse, local);
        }
        // Top-p takes its share of everything that top-k keeps. In all other cases, what min-p drops is not needed.
        if stage == 0u && !(by_count(how) && by_mass(how)) {
            cut = max(cut, least);
        }
    }
    return Rest(source, max(cut, least));
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
    let best = best_block(c, local);
    var token = NOT_FINITE;
    if best.key > 0u && best.key < BROKEN {
        var rest = Rest(source_of(LIVE, 1u), LOWEST);
        if filtered(c.how) {
            rest = filter_tokens(c, value_of(best.key), local);
        } else {
            if local == 0u {
                live[0] = best.id;
            }
            workgroupBarrier();
        }
        token = best_token(c, rest.source, rest.cut, local);
    }
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
