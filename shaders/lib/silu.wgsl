// silu(x) = x / (1 + exp(-x)). The exponent is bounded, because a shader may assume that no number is infinite. Below
// -80 the result is 0 to within 2e-33.
fn silu(x: f32) -> f32 {
    return x / (1.0 + exp(-max(x, -80.0)));
}

fn silu4(x: vec4<f32>) -> vec4<f32> {
    return x / (1.0 + exp(-max(x, vec4<f32>(-80.0))));
}
