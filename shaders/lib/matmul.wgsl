// Matrix times many rows, in exact f32: a workgroup of 256 threads computes a tile of 64 rows × 64 outputs,
// every thread 4 × 4 of it in registers, from 32 columns at a time staged in shared memory (16 KiB).
// The kernel declares x [rows, cols] and stores through `store`; weights_*.wgsl reads w.
const TILE: u32 = 64u;
const STEP: u32 = 32u;

var<workgroup> tile_x: array<vec4<f32>, 512>; // [32 columns, 64 rows / 4]
var<workgroup> tile_w: array<vec4<f32>, 512>; // [32 columns, 64 outputs / 4]

fn matmul_tile(group: vec3<u32>, local: u32) {
    let first_row = group.y * TILE;
    let first_out = group.x * TILE;
    let four = local / 16u;
    let part = local % 16u;
    var c0 = vec4<f32>();
    var c1 = vec4<f32>();
    var c2 = vec4<f32>();
    var c3 = vec4<f32>();
    for (var k = 0u; k < n.cols; k += STEP) {
        // x: thread (four, part) brings columns 2 part and 2 part + 1 of four rows. Past the end: zero.
        let inside = k + 2u * part < n.cols;
        var even = vec4<f32>();
        var odd = vec4<f32>();
        var even_w = vec4<f32>();
        var odd_w = vec4<f32>();
        if inside {
            //#for I in 4
            let pair_#I = x[min(first_row + four * 4u + #Iu, n.rows - 1u) * (n.cols / 2u) + k / 2u + part];
            let pair_w_#I = weight_pair(n.line + min(first_out + four * 4u + #Iu, n.outs - 1u), k + 2u * part);
            //#end
            even = vec4<f32>(pair_0.x, pair_1.x, pair_2.x, pair_3.x);
            odd = vec4<f32>(pair_0.y, pair_1.y, pair_2.y, pair_3.y);
            even_w = vec4<f32>(pair_w_0.x, pair_w_1.x, pair_w_2.x, pair_w_3.x);
            odd_w = vec4<f32>(pair_w_0.y, pair_w_1.y, pair_w_2.y, pair_w_3.y);
        }
        workgroupBarrier();
        tile_x[2u * part * 16u + four] = even;
        tile_x[(2u * part + 1u) * 16u + four] = odd;
        tile_w[2u * part * 16u + four] = even_w;
        tile_w[(2u * part + 1u) * 16u + four] = odd_w;
        workgroupBarrier();
        for (var j = 0u; j < STEP; j++) {
            let a = tile_x[j * 16u + four];
            let b = tile_w[j * 16u + part];
            c0 += a.x * b;
            c1 += a.y * b;
            c2 += a.z * b;
            c3 += a.w * b;
        }
    }
    let row = first_row + four * 4u;
    let out = first_out + part * 4u;
    //#for I in 4
    if out + #Iu < n.outs {
        store(row, out + #Iu, c0[#I]);
        store(row + 1u, out + #Iu, c1[#I]);
        store(row + 2u, out + #Iu, c2[#I]);
        store(row + 3u, out + #Iu, c3[#I]);
    }
    //#end
}
