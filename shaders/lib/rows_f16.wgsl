// Rows that a kernel writes as f16 for products with cooperative matrices, [rows, width / 4]: divided by 16, so that they may
// reach a million. Packing needs no optional feature. Larger numbers are clamped, because packing them is undefined.
alias Row4 = vec2<u32>;

fn packed(v: vec4<f32>) -> Row4 {
    let c = clamp(v / 16.0, vec4<f32>(-65504.0), vec4<f32>(65504.0));
    return vec2<u32>(pack2x16float(c.xy), pack2x16float(c.zw));
}
