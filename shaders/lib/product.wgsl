// sum[r] = (W·x[r]) of four lines; every thread of the workgroup gets it.
fn product(line: Lines, local: u32, sum: ptr<function, array<vec4<f32>, ROWS>>) {
    let count = n.cols / (4u * PER);
    for (var k = local; k < count; k += WG) {
        let chunks = chunks_of(line, k);
        for (var r = 0u; r < ROWS; r++) {
            var products = vec4<f32>();
            var total = vec4<f32>();
            for (var i = 0u; i < PER; i++) {
                let v = x[(r * count + k) * PER + i];
                products += dots(chunks, i, v);
                total += v;
            }
            (*sum)[r] += products_of(chunks, products, total);
        }
    }
    for (var r = 0u; r < ROWS; r++) {
        (*sum)[r] = sum4((*sum)[r], local);
    }
}
