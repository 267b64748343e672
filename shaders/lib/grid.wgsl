// The index of a workgroup in a grid that may be folded into two dimensions (Caps::grid).
fn group_index(group: vec3<u32>, groups: vec3<u32>) -> u32 {
    return group.x + group.y * groups.x;
}
