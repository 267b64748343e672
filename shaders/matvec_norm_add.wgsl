// y += W·RMSNorm(x): the output projection behind Mamba2's gated norm (spec 3.4 steps 6 and 7).
@group(0) @binding(4) var<storage, read_write> y: array<f32>; // [rows, stride]

fn store(row: u32, line: u32, out: u32) {
    y[row * n.stride + out] += result(row, line);
}

@compute @workgroup_size(WG)
fn matvec_norm_add(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    outputs(group, groups, local);
}
