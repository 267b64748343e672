// Sums TOKENS vec4s over the WG threads of a workgroup at once, through workgroup memory. Every thread calls `fold`, in
// uniform control flow. Then `folded(i)` is the sum of component i % 4 of vec4 i / 4. A thread may ask for i = local,
// local + WG, ...
var<workgroup> fold_shared: array<vec4<f32>, TOKENS * WG>; // [TOKENS, WG]

fn fold(values: array<vec4<f32>, TOKENS>, local: u32) {
    workgroupBarrier();
    //#for T in TOKENS
    fold_shared[#Tu * WG + local] = values[#T];
    //#end
    workgroupBarrier();
}

fn folded(i: u32) -> f32 {
    var sum = 0.0;
    for (var lane = 0u; lane < WG; lane++) {
        sum += fold_shared[i / 4u * WG + lane][i % 4u];
    }
    return sum;
}
