// What pick_scan and pick share (spec 6): a segment's settings, its logits after the repetition penalty, keys in
// the order of floats, and the Gumbel numbers of a draw. Needs the bindings `batch`, `logits`, `sampling` and
// `seen`, the numbers rows, vocab and slots, and `const BLOCK`.

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
    blocks: u32, // where its blocks begin
    seen: u32, // where its slot's bits begin
    slot: u32,
    first: u32, // its segment's first row
    rows: u32,
    position: u32, // of its segment's last row
    how: Sampling,
}

// In place of a block's largest key: a logit of it is NaN or +inf.
const BROKEN: u32 = 0xffffffffu;
// Not a candidate: past the end of the vocabulary, or masked by the model.
const NOTHING: f32 = -0x1.fffffep127f;
// The f32 above it: the cut that lets every candidate pass.
const LOWEST: f32 = -0x1.fffffcp127f;

// Unsigned integers in the order of the floats; -0 and +0 are the same one. 0 is below all of them.
fn key_of(v: vec4<f32>) -> vec4<u32> {
    let bits = bitcast<vec4<u32>>(v);
    return select(bits | vec4<u32>(0x80000000u), vec4<u32>() - bits, bits >= vec4<u32>(0x80000000u));
}
const INFINITY_KEY: u32 = 0xff800000u;
const MINUS_INFINITY_KEY: u32 = 0x00800000u;

fn value_of(key: u32) -> f32 {
    return bitcast<f32>(select(0u - key, key & 0x7fffffffu, key >= 0x80000000u));
}

// Keys of NaN are above that of +inf or below that of -inf.
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

// What is on. `score` in core/src/ops/pick_scan.rs asks the same.
fn by_count(how: Sampling) -> bool {
    return how.temperature > 0.0 && how.top_k > 0u && how.top_k < n.vocab;
}

fn by_mass(how: Sampling) -> bool {
    return how.temperature > 0.0 && how.top_p < 1.0;
}

fn filtered(how: Sampling) -> bool {
    return by_count(how) || by_mass(how) || (how.temperature > 0.0 && how.min_p > 0.0);
}

// The logits of four tokens, loaded before anything branches, so that the loads are under way together.
fn load(row: u32, tokens: vec4<u32>) -> vec4<f32> {
    let at = row + min(tokens, vec4<u32>(n.vocab - 1u));
    return vec4<f32>(logits[at.x], logits[at.y], logits[at.z], logits[at.w]);
}

// They after the repetition penalty; NOTHING past the end of the vocabulary.
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

// What a token weighs beside one with the logit `top`: 1 if they are equal.
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

// -ln(-ln(1 - v)) for v = (bits + 1/2) / 2^32. What wins has a small v, and for it WGSL promises too little of
// log(1 - v), which is near log(1): the series of it keeps every bit of v.
fn gumbel(bits: vec4<u32>) -> vec4<f32> {
    let v = min((vec4<f32>(bits) + 0.5) * 2.3283064e-10, vec4<f32>(0.99999994));
    let series = v * (1.0 + v * (0.5 + v * (0.33333334 + v * (0.25 + v * 0.2))));
    return -log(select(-log(1.0 - v), series, v < vec4<f32>(0.0625)));
}

// What decides among these tokens: the logit, or with a temperature its draw.
fn drawn(c: Choice, tokens: vec4<u32>, l: vec4<f32>) -> vec4<f32> {
    var scores = l;
    if c.how.temperature > 0.0 {
        scores += c.how.temperature * gumbel(random(c, tokens));
    }
    return scores;
}
