// A matrix `w` [lines, cols] of f16, two in a word, the first in the low half. Unpacking needs no optional feature. It offers
// the functions of weights_bf16.wgsl, so that a kernel need not know the format.
struct Chunk {
    words: vec4<u32>,
}

// Chunk k of a line.
fn chunk_of(line: u32, k: u32) -> Chunk {
    return Chunk(w[line * (n.cols / 8u) + k]);
}

// What `quad` is multiplied by to be weights.
const SPREAD: vec4<f32> = vec4<f32>(1.0);

// The i-th four weights of a chunk.
fn quad(c: Chunk, i: u32) -> vec4<f32> {
    let words = select(c.words.xy, c.words.zw, i == 1u);
    return vec4<f32>(unpack2x16float(words.x), unpack2x16float(words.y));
}

// The same four weights as numbers.
fn weights(c: Chunk, i: u32) -> vec4<f32> {
    return quad(c, i);
}

// The product of a chunk with some x, from the sums of quad ⊙ SPREAD ⊙ x and of x.
fn product_of(c: Chunk, product: f32, total: f32) -> f32 {
    return product;
}

// Eight weights of a line from a column on that is a multiple of 8: the first two fours of a chunk.
fn eight_of(line: u32, col: u32) -> Chunk {
    return Chunk(w[line * (n.cols / 8u) + col / 8u]);
}
