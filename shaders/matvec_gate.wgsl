// y = silu(G·h) ⊙ (U·h), h = RMSNorm(x): the first half of an FFN (spec 3.6). `w` has `outs` rows of G, then `outs`
// rows of U.
@group(0) @binding(4) var<storage, read_write> y: array<f32>; // [rows, stride]

fn store(row: u32, line: u32, out: u32) {
    let gate = result(row, line);
    y[row * n.stride + out] = result(row, line + 1u) * gate / (1.0 + exp(-gate));
}

@compute @workgroup_size(WG)
fn matvec_gate(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    outputs(group, groups, local);
}
