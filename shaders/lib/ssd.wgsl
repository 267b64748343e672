// Functions of the Mamba2 scan. A 4 x 4 block of the state is a matrix whose columns are four rows of the head, and
// whose rows are four neighbouring columns of d_state, as in memory.

// log(1 + exp(x)) = max(x, 0) + log(1 + u) with u = exp(-|x|). The logarithm is the series of atanh(u / (2 + u)), whose
// argument is at most 1/3. So small results are right to the last bit, too, where computing 1 + u would lose bits.
fn softplus(x: f32) -> f32 {
    let u = exp(-min(abs(x), 80.0));
    let z = u / (2.0 + u);
    let q = z * z;
    let series = 1.0 + q * (1.0 / 3.0 + q * (0.2 + q * (1.0 / 7.0 + q * (1.0 / 9.0 + q * (1.0 / 11.0 + q / 13.0)))));
    return max(x, 0.0) + 2.0 * z * series;
}

fn outer(rows: vec4<f32>, columns: vec4<f32>) -> mat4x4<f32> {
    return mat4x4<f32>(rows * columns.x, rows * columns.y, rows * columns.z, rows * columns.w);
}
