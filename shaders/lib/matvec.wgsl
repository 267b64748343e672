// Matrix times a few vectors: shared by every matvec kernel. A workgroup of WG threads computes the products
// of OUTS (2 or 4) lines of `w` with ROWS rows of `x`: every thread takes every WG-th chunk of columns, all
// weights are read once, then one reduction. product.wgsl and product_norm.wgsl hold the loop.
// Needs const WG, OUTS, ROWS and a weights_*.wgsl.
struct Lines {
    a: u32,
    b: u32,
    c: u32,
    d: u32,
}

// OUTS consecutive lines from `first` on, clamped to `outs`: the caller does not store past it.
fn lines(first: u32, outs: u32) -> Lines {
    let last = outs - 1u;
    return Lines(min(first, last), min(first + 1u, last), min(first + 2u, last), min(first + 3u, last));
}

struct Chunks {
    a: Chunk,
    b: Chunk,
    c: Chunk,
    d: Chunk,
}

// Chunk k of each line.
fn chunks_of(line: Lines, k: u32) -> Chunks {
    var chunks: Chunks;
    chunks.a = chunk_of(line.a, k);
    chunks.b = chunk_of(line.b, k);
    if OUTS == 4u {
        chunks.c = chunk_of(line.c, k);
        chunks.d = chunk_of(line.d, k);
    }
    return chunks;
}

// The products of the i-th four weights of each line with four values of x.
fn dots(chunks: Chunks, i: u32, x: vec4<f32>) -> vec4<f32> {
    let a = dot(quad(chunks.a, i), x);
    let b = dot(quad(chunks.b, i), x);
    if OUTS == 2u {
        return vec4<f32>(a, b, 0.0, 0.0);
    }
    return vec4<f32>(a, b, dot(quad(chunks.c, i), x), dot(quad(chunks.d, i), x));
}

// The products of whole chunks, from the sums over their fours.
fn products_of(chunks: Chunks, products: vec4<f32>, total: vec4<f32>) -> vec4<f32> {
    let t = dot(total, vec4<f32>(1.0));
    let a = product_of(chunks.a, products.x, t);
    let b = product_of(chunks.b, products.y, t);
    if OUTS == 2u {
        return vec4<f32>(a, b, 0.0, 0.0);
    }
    return vec4<f32>(a, b, product_of(chunks.c, products.z, t), product_of(chunks.d, products.w, t));
}
