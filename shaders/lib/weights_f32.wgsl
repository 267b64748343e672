// A matrix `w` [lines, cols] of f32, one in a word. It offers the functions of weights_bf16.wgsl, so that a kernel need not
// know the format. A chunk has four weights (PER is 1); `more` holds the second four of `eight_of`.
struct Chunk {
    words: vec4<u32>,
    more: vec4<u32>,
}

// Chunk k of a line.
fn chunk_of(line: u32, k: u32) -> Chunk {
    return Chunk(w[line * (n.cols / 4u) + k], vec4<u32>());
}

// What `quad` is multiplied by to be weights.
const SPREAD: vec4<f32> = vec4<f32>(1.0);

// The i-th four weights of a chunk.
fn quad(c: Chunk, i: u32) -> vec4<f32> {
    return bitcast<vec4<f32>>(select(c.words, c.more, i == 1u));
}

// The same four weights as numbers.
fn weights(c: Chunk, i: u32) -> vec4<f32> {
    return quad(c, i);
}

// The product of a chunk with some x, from the sums of quad ⊙ SPREAD ⊙ x and of x.
fn product_of(c: Chunk, product: f32, total: f32) -> f32 {
    return product;
}

// Eight weights of a line from a column on that is a multiple of 8: two chunks in one.
fn eight_of(line: u32, col: u32) -> Chunk {
    let at = line * (n.cols / 4u) + col / 4u;
    return Chunk(w[at], w[at + 1u]);
}
