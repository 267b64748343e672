// Keys and values stored as f16, two per word. Packing needs no optional feature. Values beyond the range of f16 are
// clamped, because packing them is undefined.
alias Kv4 = vec2<u32>;

fn kv_unpack(v: Kv4) -> vec4<f32> {
    return vec4<f32>(unpack2x16float(v.x), unpack2x16float(v.y));
}

fn kv_pack(v: vec4<f32>) -> Kv4 {
    let c = clamp(v, vec4<f32>(-65504.0), vec4<f32>(65504.0));
    return vec2<u32>(pack2x16float(c.xy), pack2x16float(c.zw));
}
