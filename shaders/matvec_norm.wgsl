// y = W·RMSNorm(x): a projection into a mixer.
@group(0) @binding(4) var<storage, read_write> y: array<f32>; // [rows, stride]

fn store(row: u32, line: u32, out: u32) {
    y[row * n.stride + out] = result(row, line);
}

@compute @workgroup_size(WG)
fn matvec_norm(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    outputs(group, groups, local);
}
