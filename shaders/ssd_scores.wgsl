// The scores C[t] . B[r] inside chunks (spec 3.4, chunked prefill), computed once for all heads. One workgroup per
// chunk and SLICE of its rows r.
struct Numbers {
    d_inner: u32,
    d_state: u32,
}

@group(0) @binding(0) var<uniform> n: Numbers;
@group(0) @binding(1) var<storage, read> batch: Batch;
@group(0) @binding(2) var<storage, read> xbc: array<vec4<f32>>; // [rows, x: d_inner | B: d_state | C: d_state] / 4
@group(0) @binding(3) var<storage, read_write> scores: array<vec4<f32>>; // [tiles, r: CHUNK, t: CHUNK] / 4

// Four rows from `row` on and four columns, transposed. Rows from `end` on are zero.
fn block(row: u32, end: u32, column: u32) -> mat4x4<f32> {
    var m = mat4x4<f32>();
    for (var i = 0u; i < 4u; i++) {
        if row + i < end {
            m[i] = xbc[(row + i) * ((n.d_inner + 2u * n.d_state) / 4u) + column];
        }
    }
    return transpose(m);
}

@compute @workgroup_size(WG)
fn ssd_scores(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let index = group_index(group, groups);
    let tile = tile_of(index / (CHUNK / SLICE), CHUNK);
    let first = index % (CHUNK / SLICE) * SLICE;
    if first >= tile.rows {
        return;
    }
    let end = tile.first + tile.rows;
    let places = n.d_state / 4u;
    let quad = local % 16u;
    let term = local / 16u;
    var sum = mat4x4<f32>();
    for (var place = 0u; place < places; place += SLICE / 4u) {
        workgroupBarrier();
        var c = mat4x4<f32>();
        if place + term < places {
            c = block(tile.first + 4u * quad, end, n.d_inner / 4u + places + place + term);
        }
        for (var i = 0u; i < 4u; i++) {
            left[(4u * term + i) * 16u + quad] = c[i];
        }
        if quad < 4u {
            var b = mat4x4<f32>();
            if place + term < places {
                b = block(tile.first + first + 4u * quad, end, n.d_inner / 4u + place + term);
            }
            for (var i = 0u; i < 4u; i++) {
                right[(4u * term + i) * 4u + quad] = b[i];
            }
        }
        workgroupBarrier();
        sum = product(sum, 0u, local);
    }
    for (var i = 0u; i < 4u; i++) {
        let r = first + 4u * term + i;
        if r < tile.rows {
            scores[(index / (CHUNK / SLICE) * CHUNK + r) * 16u + quad] = sum[i];
        }
    }
}
