// 1 / |row| for every row of a matrix (spec 3.7): one thread per row. It runs once per load, so it need not be fast.
struct Numbers {
    lines: u32,
    cols: u32,
    first: u32,
}

@group(0) @binding(0) var<uniform> n: Numbers;
@group(0) @binding(1) var<storage, read> w: array<vec4<u32>>; // [lines, cols], see lib/weights_*.wgsl
@group(0) @binding(2) var<storage, read_write> y: array<f32>; // [total]

@compute @workgroup_size(WG)
fn row_norms(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let line = group_index(group, groups) * WG + local;
    if line >= n.lines {
        return;
    }
    var squares = vec4<f32>();
    for (var k = 0u; k < n.cols / (4u * PER); k++) {
        let chunk = chunk_of(line, k);
        for (var i = 0u; i < PER; i++) {
            let values = weights(chunk, i);
            squares += values * values;
        }
    }
    let square = dot(squares, vec4<f32>(1.0));
    // A row of zeros has no direction. Its logit is 0 with any factor.
    y[n.first + line] = select(1.0, 1.0 / sqrt(square), square > 0.0);
}
