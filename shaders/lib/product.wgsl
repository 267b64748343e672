// sum[r] = (W·x[r]) of four lines; every thread of the workgroup gets it.
fn product(line: Lines, local: u32, sum: ptr<function, array<vec4<f32>, ROWS>>) {
    let cols8 = n.cols / 8u;
    for (var k = local; k < cols8; k += WG) {
        let w0 = w[line.a * cols8 + k];
        let w1 = w[line.b * cols8 + k];
        var w2 = vec4<u32>();
        var w3 = vec4<u32>();
        if OUTS == 4u {
            w2 = w[line.c * cols8 + k];
            w3 = w[line.d * cols8 + k];
        }
        for (var r = 0u; r < ROWS; r++) {
            let at = (r * cols8 + k) * 2u;
            let a = x[at];
            let b = x[at + 1u];
            (*sum)[r] += vec4<f32>(dot_eight(w0, a, b), dot_eight(w1, a, b), dot_eight(w2, a, b), dot_eight(w3, a, b));
        }
    }
    for (var r = 0u; r < ROWS; r++) {
        (*sum)[r] = sum4((*sum)[r], local);
    }
}
