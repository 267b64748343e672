// A matrix `w` [lines, cols] in f16: two per word, the first in the low half. Unpacking needs no optional feature. It
// has the functions of weights_bf16.wgsl, so a kernel does not depend on the format.
struct Chunk {
    words: vec4<u32>,
}

// Chunk k of a matrix row.
fn chunk_of(line: u32, k: u32) -> Chunk {
    return Chunk(w[line * (n.cols / 8u) + k]);
}

// What the result of `quad` must be multiplied by to give weights.
const SPREAD: vec4<f32> = vec4<f32>(1.0);

// The i-th four weights of a chunk, divided by SPREAD.
fn quad(c: Chunk, i: u32) -> vec4<f32> {
    let words = select(c.words.xy, c.words.zw, i == 1u);
    return vec4<f32>(unpack2x16float(words.x), unpack2x16float(words.y));
}

// The i-th four weights of a chunk as f32.
fn weights(c: Chunk, i: u32) -> vec4<f32> {
    return quad(c, i);
}

// The dot product of a chunk with x, from the sum of quad ⊙ SPREAD ⊙ x and the sum of x.
fn product_of(c: Chunk, product: f32, total: f32) -> f32 {
    return product;
}

// Eight weights of a matrix row, from column `col` on, which is a multiple of 8. They are the first two quads of the
// result.
fn eight_of(line: u32, col: u32) -> Chunk {
    return Chunk(w[line * (n.cols / 8u) + col / 8u]);
}
