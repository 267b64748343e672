// The sum over the WG threads of a workgroup, through workgroup memory. Every thread calls it, in uniform control flow,
// and every thread gets the sum. Needs `const WG` (a power of two).
var<workgroup> reduce_shared: array<vec4<f32>, WG>;

fn sum4(value: vec4<f32>, local: u32) -> vec4<f32> {
    workgroupBarrier();
    reduce_shared[local] = value;
    for (var step = WG / 2u; step > 0u; step = step / 2u) {
        workgroupBarrier();
        if local < step {
            reduce_shared[local] += reduce_shared[local + step];
        }
    }
    workgroupBarrier();
    return reduce_shared[0];
}

fn sum1(value: f32, local: u32) -> f32 {
    return sum4(vec4<f32>(value, 0.0, 0.0, 0.0), local).x;
}
