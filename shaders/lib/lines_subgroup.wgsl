// The same sums as in lines.wgsl, with subgroup operations. All subgroups have SUBGROUP threads (Caps), so thread
// `local` is in subgroup `local / SUBGROUP`. LANES is a multiple of SUBGROUP.
const PARTS: u32 = WG / SUBGROUP;
var<workgroup> parts: array<f32, VALUES * PARTS>;

fn put(index: u32, value: f32, local: u32) {
    let part = subgroupAdd(value);
    if local % SUBGROUP == 0u {
        parts[index * PARTS + local / SUBGROUP] = part;
    }
}

fn close(local: u32) {
    workgroupBarrier();
}

fn total(index: u32, team: u32) -> f32 {
    var sum = 0.0;
    for (var i = 0u; i < LANES / SUBGROUP; i++) {
        sum += parts[index * PARTS + team * (LANES / SUBGROUP) + i];
    }
    return sum;
}

// The sum over all teams.
fn grand_total(index: u32) -> f32 {
    var sum = 0.0;
    for (var i = 0u; i < PARTS; i++) {
        sum += parts[index * PARTS + i];
    }
    return sum;
}
