// 1 / |row| for every row of a bf16 table (spec 3.7): one thread per row. It runs once per load, so no
// memory access pattern is worth a reduction.
struct Numbers {
    rows: u32,
    width: u32,
    first: u32,
    total: u32,
}

@group(0) @binding(0) var<uniform> n: Numbers;
@group(0) @binding(1) var<storage, read> table: array<vec4<u32>>; // [rows, width / 8] of 8 bf16
@group(0) @binding(2) var<storage, read_write> y: array<f32>; // [total]

@compute @workgroup_size(WG)
fn row_norms(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let row = group_index(group, groups) * WG + local;
    if row >= n.rows {
        return;
    }
    let eights = n.width / 8u;
    var squares = vec4<f32>();
    for (var i = 0u; i < eights; i++) {
        let values = bf16_eight(table[row * eights + i]);
        squares += values.a * values.a + values.b * values.b;
    }
    let square = dot(squares, vec4<f32>(1.0));
    // A row of zeros has no direction; its logit is 0 whatever the factor.
    y[n.first + row] = select(1.0, 1.0 / sqrt(square), square > 0.0);
}
