// y = relu(W·RMSNorm(x))²: the first half of an ungated FFN (spec 1.1, mlp_hidden_act).
@group(0) @binding(4) var<storage, read_write> y: array<f32>; // [rows, stride]

fn store(row: u32, line: u32, out: u32) {
    let up = max(result(row, line), 0.0);
    y[row * n.stride + out] = up * up;
}

@compute @workgroup_size(WG)
fn matvec_relu2(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    outputs(group, groups, local);
}
