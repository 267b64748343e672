// The same sums as team.wgsl through subgroup operations. All subgroups have SUBGROUP threads (Caps), so a team of LANES
// <= SUBGROUP neighbours, a power of two, lies within one. Needs const HALVINGS with LANES = 1 << HALVINGS.
fn team_sum(value: f32, local: u32) -> f32 {
    if LANES == SUBGROUP {
        return subgroupAdd(value);
    }
    var sum = value;
    //#for I in HALVINGS
    sum += subgroupShuffleXor(sum, 1u << #Iu);
    //#end
    return sum;
}

fn team_sums(parts: array<f32, VALUES>, local: u32) -> array<f32, VALUES> {
    return array<f32, VALUES>(
        //#for I in VALUES
        team_sum(parts[#I], local),
        //#end
    );
}
