// y = W·RMSNorm(x) ⊙ logit_scale: logits, each divided by the length of its row of the head (spec 3.7).
@group(0) @binding(4) var<storage, read> logit_scale: array<f32>; // [stride], 1 / length of each row of the head
@group(0) @binding(5) var<storage, read_write> y: array<f32>; // [rows, stride]

fn store(row: u32, line: u32, out: u32) {
    y[row * n.stride + out] = result(row, line) * logit_scale[out];
}

@compute @workgroup_size(WG)
fn logits(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    outputs(group, groups, local);
}
