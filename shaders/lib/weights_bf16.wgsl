// A matrix `w` [lines, cols] as published: bf16, two in a word, the first in the low half; a shift or a mask makes
// them f32, exactly. weights_quant.wgsl offers the same functions, so that a kernel need not know the format.
// A chunk is what one vec4<u32> holds: PER vec4s of weights, a constant in front.


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
    let low = bitcast<vec2<f32>>(words << vec2<u32>(16u));
    let high = bitcast<vec2<f32>>(words & vec2<u32>(0xffff0000u));
    return vec4<f32>(low.x, high.x, low.y, high.y);
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
