// Sums over each team of LANES neighbouring threads, through workgroup memory. Every thread of a team gets the sums.
// Every thread of the workgroup calls these functions, in uniform control flow. Needs const WG = TEAMS * LANES, LANES
// (a power of two) and VALUES.
var<workgroup> team_parts: array<f32, VALUES * WG>;

fn team_sum(value: f32, local: u32) -> f32 {
    workgroupBarrier(); // all threads have read the previous sums
    team_parts[local] = value;
    for (var step = LANES / 2u; step > 0u; step = step / 2u) {
        workgroupBarrier();
        if local % LANES < step {
            team_parts[local] += team_parts[local + step];
        }
    }
    workgroupBarrier();
    return team_parts[local / LANES * LANES];
}

// VALUES sums at once. Each lane computes one of them (or every LANES-th). It begins with its own part, so that lanes
// read from different banks.
fn team_sums(parts: array<f32, VALUES>, local: u32) -> array<f32, VALUES> {
    let lane = local % LANES;
    let first = local - lane;
    workgroupBarrier();
    //#for I in VALUES
    team_parts[#Iu * WG + local] = parts[#I];
    //#end
    workgroupBarrier();
    for (var i = lane; i < VALUES; i += LANES) {
        var sum = 0.0;
        for (var j = 0u; j < LANES; j++) {
            sum += team_parts[i * WG + first + (lane + j) % LANES];
        }
        team_parts[i * WG + first] = sum; // no other lane reads these parts
    }
    workgroupBarrier();
    return array<f32, VALUES>(
        //#for I in VALUES
        team_parts[#Iu * WG + first],
        //#end
    );
}
