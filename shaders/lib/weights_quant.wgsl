// A matrix `w` [lines, cols] of integers of BITS bits. GROUP neighbours in a row share a scale and a bias: a weight is
// scale · q + bias. The integers come first: [lines, cols · BITS / 32] words, the first integer of a word in its lowest
// bits. The scales and biases of the groups follow, [lines, cols / GROUP]. Each group has one word, with the scale in
// the low half and the bias in the high half, both bf16 (SCALES 0) or f16 (SCALES 1), or it has two words, the scale
// and the bias as f32 (SCALES 2). Needs const BITS (4 or 8), GROUP (32, 64 or 128; with 8 bits also 16) and SCALES. It
// has the functions of weights_bf16.wgsl. A chunk is what one vec4<u32> holds: PER vec4s of weights. A group has one or
// several chunks.


struct Chunk {
    words: vec4<u32>,
    scale: f32,
    bias: f32,
}

fn scale_and_bias(line: u32, col: u32) -> vec2<f32> {
    let group = line * (n.cols / GROUP) + col / GROUP;
    let first = n.lines * (n.cols * BITS / 32u);
    if SCALES == 2u {
        let at = first + 2u * group;
        return bitcast<vec2<f32>>(vec2<u32>(w[at / 4u][at % 4u], w[(at + 1u) / 4u][(at + 1u) % 4u]));
    }
    let at = first + group;
    let word = w[at / 4u][at % 4u];
    if SCALES == 1u {
        return unpack2x16float(word);
    }
    return bitcast<vec2<f32>>(vec2<u32>(word << 16u, word & 0xffff0000u));
}

// Chunk k of a matrix row.
fn chunk_of(line: u32, k: u32) -> Chunk {
    let pair = scale_and_bias(line, k * 4u * PER);
    return Chunk(w[line * (n.cols * BITS / 128u) + k], pair.x, pair.y);
}

// What the result of `quad` must be multiplied by to give integers, because `quad` leaves them at their places in a
// half word.
const NEXT: f32 = 1.0 / f32(1u << BITS);
const SPREAD: vec4<f32> = select(vec4<f32>(1.0, NEXT, NEXT * NEXT, NEXT * NEXT * NEXT), vec4<f32>(1.0, NEXT, 1.0, NEXT), BITS == 8u);

// The i-th four integers of a chunk, each divided by its component of SPREAD. An integer in the mantissa of 2²³ becomes
// a float without a conversion, which on GPUs is much slower than an addition. The integers of a half word need no
// shift.
fn quad(c: Chunk, i: u32) -> vec4<f32> {
    let word = c.words[i * BITS / 8u];
    let high = word >> 16u;
    let halves = select(vec4<u32>(select(word, high, i % 2u == 1u)), vec4<u32>(word, word, high, high), BITS == 8u);
    const MASK = (1u << BITS) - 1u;
    const MASKS = select(
        vec4<u32>(MASK, MASK << BITS, MASK << (2u * BITS % 32u), MASK << (3u * BITS % 32u)),
        vec4<u32>(MASK, MASK << BITS, MASK, MASK << BITS),
        BITS == 8u,
    );
    return bitcast<vec4<f32>>((halves & MASKS) | vec4<u32>(0x4b000000u)) - vec4<f32>(8388608.0);
}

// The i-th four weights of a chunk as f32.
fn weights(c: Chunk, i: u32) -> vec4<f32> {
    return c.scale * (quad(c, i) * SPREAD) + c.bias;
}

// The dot product of a chunk with x, from the sum of quad ⊙ SPREAD ⊙ x and the sum of x.
fn product_of(c: Chunk, product: f32, total: f32) -> f32 {
    return c.scale * product + c.bias * total;
}

// Eight weights of a matrix row, from column `col` on, which is a multiple of 8. They are the first two quads of the
// result, from one word (4 bits) or two words (8 bits).
fn eight_of(line: u32, col: u32) -> Chunk {
    let at = line * (n.cols * BITS / 32u) + col / 8u * (BITS / 4u);
    let next = at + BITS / 4u - 1u;
    let pair = scale_and_bias(line, col);
    return Chunk(vec4<u32>(w[at / 4u][at % 4u], w[next / 4u][next % 4u], 0u, 0u), pair.x, pair.y);
}
