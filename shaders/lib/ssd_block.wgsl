// Products of small matrices in workgroup memory, for the chunked Mamba2 scan. 64 threads compute a result of 64 x 16,
// 16 terms at a time. Thread `local` has the 4 x 4 block at rows 4 (local % 16).. and columns 4 (local / 16)... The
// columns of its matrix are columns of the result.
const CHUNK: u32 = 64u;
const SLICE: u32 = 16u;

var<workgroup> left: array<vec4<f32>, SLICE * 16u>; // [SLICE, 64] / 4: term, row
var<workgroup> right: array<vec4<f32>, (SLICE + EXTRA) * 4u>; // [SLICE + EXTRA, 16] / 4: term, column

// Adds SLICE terms left[term, row] right[at + term, column] to `sum`.
fn product(sum: mat4x4<f32>, at: u32, local: u32) -> mat4x4<f32> {
    let row = local % 16u;
    let column = at * 4u + local / 16u;
    var result = sum;
    // Unrolled by hand, because naga does not unroll.
    for (var k = 0u; k < SLICE; k += 4u) {
        result += outer(left[k * 16u + row], right[k * 4u + column]);
        result += outer(left[k * 16u + 16u + row], right[k * 4u + 4u + column]);
        result += outer(left[k * 16u + 32u + row], right[k * 4u + 8u + column]);
        result += outer(left[k * 16u + 48u + row], right[k * 4u + 12u + column]);
    }
    return result;
}
