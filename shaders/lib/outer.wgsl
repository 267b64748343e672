// a bᵀ as a matrix whose column j is a * b[j]. With four value columns `a` and four key rows `b`, it is what a step of
// the delta rule adds to a 4 x 4 tile of the state. `tile * k` is then the tile's part of Sᵀk.
fn outer(a: vec4<f32>, b: vec4<f32>) -> mat4x4<f32> {
    return mat4x4<f32>(a * b.x, a * b.y, a * b.z, a * b.w);
}
