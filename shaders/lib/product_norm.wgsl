// sum[r] = (W·RMSNorm(x[r])) of four lines; every thread of the workgroup gets it. The norm costs no step of
// its own: W·(x ⊙ scale) / rms(x) needs only the sum of squares, and x is read here anyway.
fn product(line: Lines, local: u32, sum: ptr<function, array<vec4<f32>, ROWS>>) {
    let count = n.cols / (4u * PER);
    var squares: array<f32, ROWS>;
    for (var k = local; k < count; k += WG) {
        let chunks = chunks_of(line, k);
        for (var r = 0u; r < ROWS; r++) {
            var products = vec4<f32>();
            var total = vec4<f32>();
            for (var i = 0u; i < PER; i++) {
                let v = x[(r * count + k) * PER + i];
                squares[r] += dot(v, v);
                let scaled = v * scale[k * PER + i];
                products += dots(chunks, i, scaled);
                total += scaled;
            }
            (*sum)[r] += products_of(chunks, products, total);
        }
    }
    for (var r = 0u; r < ROWS; r++) {
        let rms = sqrt(sum1(squares[r], local) / f32(n.cols) + n.eps);
        (*sum)[r] = sum4((*sum)[r], local) / rms;
    }
}
