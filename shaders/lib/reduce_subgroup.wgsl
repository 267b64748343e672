// The same sums as in reduce.wgsl, with subgroup operations. All subgroups have SUBGROUP threads (Caps), so thread
// `local` is in subgroup `local / SUBGROUP`. A workgroup that is one subgroup needs no barrier.
var<workgroup> reduce_shared: array<vec4<f32>, (WG + SUBGROUP - 1u) / SUBGROUP>;

fn sum4(value: vec4<f32>, local: u32) -> vec4<f32> {
    let part = subgroupAdd(value);
    if WG <= SUBGROUP {
        return part;
    }
    workgroupBarrier();
    if local % SUBGROUP == 0u {
        reduce_shared[local / SUBGROUP] = part;
    }
    workgroupBarrier();
    var total = reduce_shared[0];
    for (var i = 1u; i < WG / SUBGROUP; i++) {
        total += reduce_shared[i];
    }
    return total;
}

fn sum1(value: f32, local: u32) -> f32 {
    if WG <= SUBGROUP {
        return subgroupAdd(value);
    }
    return sum4(vec4<f32>(value, 0.0, 0.0, 0.0), local).x;
}
