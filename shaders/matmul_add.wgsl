// y += W·x for many rows: an output projection with its residual. See lib/matmul.wgsl and lib/matmul_coop.wgsl.
struct Numbers {
    rows: u32,
    cols: u32,
    line: u32,
    outs: u32,
    first: u32,
    stride: u32,
    lines: u32,
}

@group(0) @binding(0) var<uniform> n: Numbers;
@group(0) @binding(1) var<storage, read> w: array<vec4<u32>>; // [lines, cols], see lib/weights_*.wgsl
@group(0) @binding(3) var<storage, read_write> y: array<f32>; // [rows, stride]

fn store(row: u32, out: u32, value: f32) {
    y[row * n.stride + n.first + out] += value;
}

@compute @workgroup_size(WG)
fn matmul_add(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    matmul_tile(group, local);
}
