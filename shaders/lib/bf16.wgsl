// Weights are bf16, two in a word, the first in the low half; a shift or a mask makes them f32, exactly.
struct Eight {
    a: vec4<f32>,
    b: vec4<f32>,
}

fn bf16_eight(w: vec4<u32>) -> Eight {
    let low = bitcast<vec4<f32>>(w << vec4<u32>(16u));
    let high = bitcast<vec4<f32>>(w & vec4<u32>(0xffff0000u));
    return Eight(vec4<f32>(low.x, high.x, low.y, high.y), vec4<f32>(low.z, high.z, low.w, high.w));
}
