// Computes VALUES sums over each team of LANES threads, through workgroup memory, all of them together. First every
// thread calls `put` with its part of each sum. Then every thread calls `close`, in uniform control flow. Then any
// thread may read any sum with `total`. Needs const WG, LANES (powers of two) and VALUES.
var<workgroup> parts: array<f32, VALUES * WG>;

fn put(index: u32, value: f32, local: u32) {
    parts[index * WG + local] = value;
}

fn close(local: u32) {
    for (var step = LANES / 2u; step > 0u; step = step / 2u) {
        workgroupBarrier();
        if local % LANES < step {
            for (var i = 0u; i < VALUES; i++) {
                parts[i * WG + local] += parts[i * WG + local + step];
            }
        }
    }
    workgroupBarrier();
}

fn total(index: u32, team: u32) -> f32 {
    return parts[index * WG + team * LANES];
}

// The sum over all teams.
fn grand_total(index: u32) -> f32 {
    var sum = 0.0;
    for (var team = 0u; team < WG / LANES; team++) {
        sum += total(index, team);
    }
    return sum;
}
