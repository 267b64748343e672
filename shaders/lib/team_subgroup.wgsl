// The same sums as in team.wgsl, with subgroup operations. All subgroups have SUBGROUP threads (Caps). LANES is a power
// of two and at most SUBGROUP, so a team lies within one subgroup. Needs const HALVINGS with LANES = 1 << HALVINGS.
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
