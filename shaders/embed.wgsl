// Embedding (spec 3.1): one workgroup per row. The table holds the tokens first .. first + count; a row
// with any other token is left alone, so that the parts of a split table, and the meta tokens, fill one x.
struct Numbers {
    rows: u32,
    width: u32,
    first: u32,
    count: u32,
    slots: u32,
}

@group(0) @binding(0) var<uniform> n: Numbers;
@group(0) @binding(1) var<storage, read> batch: Batch;
@group(0) @binding(2) var<storage, read> picked: array<u32>; // [slots]
@group(0) @binding(3) var<storage, read> table: array<vec4<u32>>; // [count, width / 8] of 8 bf16
@group(0) @binding(4) var<storage, read_write> x: array<vec4<f32>>; // [rows, width / 4]

@compute @workgroup_size(WG)
fn embed(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let row = batch.row[group.x];
    var token = row.token;
    if token == PICKED {
        token = picked[row.slot];
    }
    // Wraps to a large number for tokens below `first`.
    let at = token - n.first;
    if group.x < n.rows && at < n.count {
        let eights = n.width / 8u;
        for (var i = local; i < eights; i += WG) {
            let values = bf16_eight(table[at * eights + i]);
            let to = 2u * (group.x * eights + i);
            x[to] = values.a;
            x[to + 1u] = values.b;
        }
    }
}
