// What pick_scan and pick share (spec 6): the settings of a segment, its logits after the repetition penalty, keys in
// the order of floats, and the Gumbel numbers of a random choice. Needs the bindings `batch`, `logits`, `sampling` and
// `seen`, the numbers rows, vocab and slots, and `const BLOCK`.

// The settings of a slot, in the order of Sampling::words in core/src/sampling.rs.
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

// The segment that a workgroup works on. It is the same for all threads.
struct Choice {
    wanted: u32,
    logits: u32, // index of its first logit
    blocks: u32, // index of its first block
    seen: u32, // index of the first word of its slot's bits
    slot: u32,
    first: u32, // first row of the segment
    rows: u32,
    position: u32, // position of its last row
    how: Sampling,
}

// The key of a block in which a logit is NaN or +inf.
const BROKEN: u32 = 0xffffffffu;
// The logit of a token that cannot be chosen: beyond the end of the vocabulary, or masked by the model.
const NOTHING: f32 = -0x1.fffffep127f;
// The next f32 above NOTHING: the cut that lets every candidate pass.
const LOWEST: f32 = -0x1.fffffcp127f;

// Unsigned integers in the order of the floats. -0 and +0 have the same key. 0 is below all keys.
fn key_of(v: vec4<f32>) -> vec4<u32> {
    let bits = bitcast<vec4<u32>>(v);
    return select(bits | vec4<u32>(0x80000000u), vec4<u32>() - bits, bits >= vec4<u32>(0x80000000u));
}
const INFINITY_KEY: u32 = 0xff800000u;
const MINUS_INFINITY_KEY: u32 = 0x00800000u;

fn value_of(key: u32) -> f32 {
    return bitcast<f32>(select(0u - key, key & 0x7fffffffu, key >= 0x80000000u));
}

// The keys of NaN are above that of +inf or below that of -inf.
fn broken(keys: vec4<u32>) -> bool {
    return any(keys >= vec4<u32>(INFINITY_KEY)) || any(keys < vec4<u32>(MINUS_INFINITY_KEY));
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
        index * blocks(),
        slot * ((n.vocab + 31u) / 32u),
        slot,
        segment.first,
        segment.rows,
        batch.row[segment.first + segment.rows - 1u].position,
        sampling_of(slot),
    );
}

fn blocks() -> u32 {
    return (n.vocab + BLOCK - 1u) / BLOCK;
}

// Which filters are on. `score` in core/src/ops/pick_scan.rs computes the same.
fn by_count(how: Sampling) -> bool {
    return how.temperature > 0.0 && how.top_k > 0u && how.top_k < n.vocab;
}

fn by_mass(how: Sampling) -> bool {
    return how.temperature > 0.0 && how.top_p < 1.0;
}

fn filtered(how: Sampling) -> bool {
    return by_count(how) || by_mass(how) || (how.temperature > 0.0 && how.min_p > 0.0);
}

// The logits of four tokens. They are loaded before any branch, so that the four loads run at the same time.
fn load(row: u32, tokens: vec4<u32>) -> vec4<f32> {
    let at = row + min(tokens, vec4<u32>(n.vocab - 1u));
    return vec4<f32>(logits[at.x], logits[at.y], logits[at.z], logits[at.w]);
}

// These four logits after the repetition penalty. NOTHING beyond the end of the vocabulary.
fn penalised(c: Choice, tokens: vec4<u32>, raw: vec4<f32>) -> vec4<f32> {
    var l = raw;
    if c.how.penalty != 1.0 {
        let at = min(tokens, vec4<u32>(n.vocab - 1u));
        let word = c.seen + at / vec4<u32>(32u);
        let bits = vec4<u32>(seen[word.x], seen[word.y], seen[word.z], seen[word.w]) >> (at % vec4<u32>(32u));
        let factors = select(vec4<f32>(c.how.penalty), vec4<f32>(c.how.inverse_penalty), l > vec4<f32>());
        l = select(l, l * factors, (bits & vec4<u32>(1u)) == vec4<u32>(1u));
    }
    return select(vec4<f32>(NOTHING), l, tokens < vec4<u32>(n.vocab));
}

// The weight of a token relative to one with the logit `top`, whose weight is 1.
fn weight(how: Sampling, l: vec4<f32>, top: f32) -> vec4<f32> {
    return exp(max((l - top) * (1.0 / how.temperature), vec4<f32>(-100.0)));
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

// -ln(-ln(1 - v)) for v = (bits + 1/2) / 2^32. Winning tokens have a small v. Then 1 - v is near 1, where WGSL's log is
// not precise enough; its series keeps every bit of v.
fn gumbel(bits: vec4<u32>) -> vec4<f32> {
    let v = min((vec4<f32>(bits) + 0.5) * 2.3283064e-10, vec4<f32>(0.99999994));
    let series = v * (1.0 + v * (0.5 + v * (0.33333334 + v * (0.25 + v * 0.2))));
    return -log(select(-log(1.0 - v), series, v < vec4<f32>(0.0625)));
}

// The value by which the token is chosen: the logit, or with a temperature the score of the random choice.
fn drawn(c: Choice, tokens: vec4<u32>, l: vec4<f32>) -> vec4<f32> {
    var scores = l;
    if c.how.temperature > 0.0 {
        scores += c.how.temperature * gumbel(random(c, tokens));
    }
    return scores;
}
