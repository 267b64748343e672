// sum[r] = (W·RMSNorm(x[r])) of four lines; every thread of the workgroup gets it. The norm costs no step of
// its own: W·(x ⊙ scale) / rms(x) needs only the sum of squares, and x is read here anyway.
fn product(line: Lines, local: u32, sum: ptr<function, array<vec4<f32>, ROWS>>) {
    let cols8 = n.cols / 8u;
    var squares: array<f32, ROWS>;
    for (var k = local; k < cols8; k += WG) {
        let w0 = w[line.a * cols8 + k];
        let w1 = w[line.b * cols8 + k];
        var w2 = vec4<u32>();
        var w3 = vec4<u32>();
        if OUTS == 4u {
            w2 = w[line.c * cols8 + k];
            w3 = w[line.d * cols8 + k];
        }
        let scale_a = scale[2u * k];
        let scale_b = scale[2u * k + 1u];
        for (var r = 0u; r < ROWS; r++) {
            let at = (r * cols8 + k) * 2u;
            var a = x[at];
            var b = x[at + 1u];
            squares[r] += dot(a, a) + dot(b, b);
            a *= scale_a;
            b *= scale_b;
            (*sum)[r] += vec4<f32>(dot_eight(w0, a, b), dot_eight(w1, a, b), dot_eight(w2, a, b), dot_eight(w3, a, b));
        }
    }
    for (var r = 0u; r < ROWS; r++) {
        let rms = sqrt(sum1(squares[r], local) / f32(n.cols) + n.eps);
        (*sum)[r] = sum4((*sum)[r], local) / rms;
    }
}
