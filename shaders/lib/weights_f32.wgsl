// A matrix `w` [lines, cols] in f32, one per word. It has the functions of weights_bf16.wgsl, so a kernel does not
// depend on the format. A chunk has four weights (PER is 1). `more` has the second four weights of `eight_of`.
struct Chunk {
    words: vec4<u32>,
    more: vec4<u32>,
}

// Chunk k of a matrix row.
fn chunk_of(line: u32, k: u32) -> Chunk {
    return Chunk(w[line * (n.cols / 4u) + k], vec4<u32>());
}

// What the result of `quad` must be multiplied by to give weights.
const SPREAD: vec4<f32> = vec4<f32>(1.0);

// The i-th four weights of a chunk, divided by SPREAD.
fn quad(c: Chunk, i: u32) -> vec4<f32> {
    return bitcast<vec4<f32>>(select(c.words, c.more, i == 1u));
}

// The i-th four weights of a chunk as f32.
fn weights(c: Chunk, i: u32) -> vec4<f32> {
    return quad(c, i);
}

// The dot product of a chunk with x, from the sum of quad ⊙ SPREAD ⊙ x and the sum of x.
fn product_of(c: Chunk, product: f32, total: f32) -> f32 {
    return product;
}

// Eight weights of a matrix row, from column `col` on, which is a multiple of 8. They are two chunks in one.
fn eight_of(line: u32, col: u32) -> Chunk {
    let at = line * (n.cols / 4u) + col / 4u;
    return Chunk(w[at], w[at + 1u]);
}
