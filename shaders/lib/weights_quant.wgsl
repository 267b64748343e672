// A matrix `w` [lines, cols] of integers of BITS bits, GROUP of them sharing a scale and a bias: a weight is
// scale · q + bias. First all integers, [lines, cols · BITS / 32] words with the first in the lowest bits; then a
// word for each group, [lines, cols / GROUP], with the scale in its low half and the bias in its high half, both
// bf16 (f16 where SCALE_F16 is 1). Needs const BITS (4 or 8), GROUP (32, 64 or 128), SCALE_F16.

// vec4s of weights in a chunk, which is what one vec4<u32> holds; a group has one or several chunks.
const PER: u32 = 32u / BITS;

struct Chunk {
    words: vec4<u32>,
    scale: f32,
    bias: f32,
}

fn scale_and_bias(line: u32, col: u32) -> vec2<f32> {
    let at = n.lines * (n.cols * BITS / 32u) + line * (n.cols / GROUP) + col / GROUP;
    let word = w[at / 4u][at % 4u];
    if SCALE_F16 == 1u {
        return unpack2x16float(word);
    }
    return bitcast<vec2<f32>>(vec2<u32>(word << 16u, word & 0xffff0000u));
}

// Chunk k of a line.
fn chunk_of(line: u32, k: u32) -> Chunk {
    let pair = scale_and_bias(line, k * 4u * PER);
    return Chunk(w[line * (n.cols * BITS / 128u) + k], pair.x, pair.y);
}

// The i-th four integers of a chunk. An integer in the mantissa of 2²³ is a number without a conversion, which GPUs
// do at a fraction of the speed of an addition.
fn quad(c: Chunk, i: u32) -> vec4<f32> {
    let bit = i * 4u * BITS;
    let q = vec4<u32>(c.words[bit / 32u]) >> (vec4<u32>(0u, BITS, 2u * BITS, 3u * BITS) + bit % 32u);
    let mask = (1u << BITS) - 1u;
    return bitcast<vec4<f32>>((q & vec4<u32>(mask)) | vec4<u32>(0x4b000000u)) - vec4<f32>(8388608.0);
}

// The same four weights as numbers.
fn weights(c: Chunk, i: u32) -> vec4<f32> {
    return c.scale * quad(c, i) + c.bias;
}

// The product of a chunk with some x, from the sums of quad ⊙ x and of x.
fn product_of(c: Chunk, product: f32, total: f32) -> f32 {
    return c.scale * product + c.bias * total;
}

// Weights col and col + 1 of a line; col is even.
fn weight_pair(line: u32, col: u32) -> vec2<f32> {
    let bit = col * BITS;
    let at = line * (n.cols * BITS / 32u) + bit / 32u;
    let q = vec2<u32>(w[at / 4u][at % 4u]) >> (vec2<u32>(0u, BITS) + bit % 32u);
    let pair = scale_and_bias(line, col);
    return pair.x * vec2<f32>(q & vec2<u32>((1u << BITS) - 1u)) + pair.y;
}
