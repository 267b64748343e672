// The norm in front of a matrix-vector product.
@group(0) @binding(3) var<storage, read> scale: array<vec4<f32>>; // [cols], weight of the norm

// Four weights of the norm.
fn norm_of(i: u32) -> vec4<f32> {
    return scale[i];
}
