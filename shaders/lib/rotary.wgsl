// Rotary embedding (spec 3.3 step 2): rotates dimension j together with dimension j + head_dim / 2, four such pairs at
// a time. The table has cos and sin of every angle, computed in f64, because WGSL promises no precision for large
// angles.
struct Pairs {
    low: vec4<f32>,
    high: vec4<f32>,
}

fn rotate(v: Pairs, position: u32, quad: u32) -> Pairs {
    let at = (position * (n.head_dim / 8u) + quad) * 2u;
    let c = rotary[at]; // [positions, head_dim / 8, cos | sin, 4]
    let s = rotary[at + 1u];
    return Pairs(v.low * c - v.high * s, v.high * c + v.low * s);
}
