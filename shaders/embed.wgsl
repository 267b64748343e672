// Embedding (spec 3.1): one workgroup per row. The table `w` has the tokens first .. first + lines. A row with any
// other token is left alone, so that all shards of a table, and the meta tokens, fill one x.
struct Numbers {
    rows: u32,
    cols: u32,
    first: u32,
    lines: u32,
}

@group(0) @binding(0) var<uniform> n: Numbers;
@group(0) @binding(1) var<storage, read> batch: Batch;
@group(0) @binding(2) var<storage, read> picked: array<u32>; // [slots]
@group(0) @binding(3) var<storage, read> w: array<vec4<u32>>; // [lines, cols], see lib/weights_*.wgsl
@group(0) @binding(4) var<storage, read_write> x: array<vec4<f32>>; // [rows, cols / 4]

@compute @workgroup_size(WG)
fn embed(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let row = batch.row[group.x];
    var token = row.token;
    if token == PICKED {
        token = picked[row.slot];
    }
    // For tokens below `first` this wraps around to a large number.
    let line = token - n.first;
    if group.x < n.rows && line < n.lines {
        let chunks = n.cols / (4u * PER);
        for (var k = local; k < chunks; k += WG) {
            let chunk = chunk_of(line, k);
            for (var i = 0u; i < PER; i++) {
                x[(group.x * chunks + k) * PER + i] = weights(chunk, i);
            }
        }
    }
}
