// 1 / |row| for every row of a bf16 table (spec 3.7): one workgroup per row.
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
    let row = group_index(group, groups);
    let inside = row < n.rows;
    let eights = n.width / 8u;
    let start = select(0u, row, inside) * eights;
    var squares = vec4<f32>();
    for (var i = local; i < eights; i += WG) {
        let values = bf16_eight(table[start + i]);
        squares += values.a * values.a + values.b * values.b;
    }
    let total = sum4(squares, local);
    let square = total.x + total.y + total.z + total.w;
    if inside && local == 0u {
        // A row of zeros has no direction; its logit is 0 whatever the factor.
        y[n.first + row] = select(1.0, 1.0 / sqrt(square), square > 0.0);
    }
}
