// Loads the operands of tiles with cooperative matrices from storage buffers, with x in f16. It has the functions of
// lib/operands.wgsl.
@group(0) @binding(2) var<storage, read> x: array<vec4<f16>>; // [rows, cols / 4], divided by 16

// Four columns of a row of x. Beyond the last column it is zero, so that any weights will do there. Beyond the last row
// it may be any row.
fn x_quad(row: u32, col: u32) -> vec4<f16> {
    var quad = vec4<f16>();
    if col < n.cols {
        quad = x[min(row, n.rows - 1u) * (n.cols / 4u) + col / 4u];
    }
    return quad;
}

// Eight weights of an output. Beyond the last column or output they are any that exist.
fn w_eight(out: u32, col: u32) -> Chunk {
    return eight_of(n.line + min(out, n.outs - 1u), min(col, n.cols - 8u));
}
