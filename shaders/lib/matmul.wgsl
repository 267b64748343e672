// Matrix times many rows, in exact f32. A workgroup of WG threads computes a tile of TILE_ROWS rows × TILE_OUTS
// outputs. Every thread computes ROWS × 4 QUADS of it in registers. STEP columns are in workgroup memory at a time. A
// thread loads the next columns before it computes with these, so that the loads run meanwhile. The threads form a grid
// of TALL × WIDE. Each has every TALL-th row and every WIDE-th output, so that neighbours read neighbours. Both tiles
// are arrays of arrays, so that most indices are constants and need no check against the bounds. Constants: WG,
// TILE_ROWS = ROWS · TALL, TILE_OUTS = 4 QUADS · WIDE, STEP, UNROLL (column quads per turn of the unrolled loop),
// LOADS_X and LOADS_W (loads of a thread per step). The kernel has `store`, which stores an output. weights_*.wgsl
// reads w.
const STEP_QUADS: u32 = STEP / 4u;
const EIGHTS: u32 = STEP / 8u;
// One more than is used, so that neighbouring rows are in different banks of workgroup memory.
const PITCH: u32 = STEP_QUADS + 1u;

var<workgroup> tile_x: array<array<array<vec4<f32>, PITCH>, TALL>, ROWS>; // [ROWS, TALL, STEP / 4]
var<workgroup> tile_w: array<array<array<vec4<f32>, PITCH>, WIDE>, 4u * QUADS>; // [4 QUADS, WIDE, STEP / 4]

fn matmul_tile(group: vec3<u32>, local: u32) {
    let first_row = group.x * TILE_ROWS;
    let first_out = group.y * TILE_OUTS;
    let tall = local / WIDE;
    let wide = local % WIDE;
    //#for I in ROWS
    //#for Q in QUADS
    var sum_#I_#Q = vec4<f32>();
    //#end
    //#end
    //#for L in LOADS_X
    let x_at_#L = local + #Lu * WG;
    var next_x_#L = x_quad(first_row + x_at_#L / STEP_QUADS, x_at_#L % STEP_QUADS * 4u);
    //#end
    //#for L in LOADS_W
    let w_at_#L = local + #Lu * WG;
    var next_w_#L = w_eight(first_out + w_at_#L / EIGHTS, w_at_#L % EIGHTS * 8u);
    //#end
    for (var k = 0u; k < n.cols; k += STEP) {
        workgroupBarrier();
        //#for L in LOADS_X
        if x_at_#L < TILE_ROWS * STEP_QUADS {
            let row = x_at_#L / STEP_QUADS;
            tile_x[row / TALL][row % TALL][x_at_#L % STEP_QUADS] = next_x_#L;
        }
        //#end
        //#for L in LOADS_W
        if w_at_#L < TILE_OUTS * EIGHTS {
            let out = w_at_#L / EIGHTS;
            let quad = w_at_#L % EIGHTS * 2u;
            tile_w[out / WIDE][out % WIDE][quad] = weights(next_w_#L, 0u);
            tile_w[out / WIDE][out % WIDE][quad + 1u] = weights(next_w_#L, 1u);
        }
        //#end
        workgroupBarrier();
        //#for L in LOADS_X
        next_x_#L = x_quad(first_row + x_at_#L / STEP_QUADS, k + STEP + x_at_#L % STEP_QUADS * 4u);
        //#end
        //#for L in LOADS_W
        next_w_#L = w_eight(first_out + w_at_#L / EIGHTS, k + STEP + w_at_#L % EIGHTS * 8u);
        //#end
        for (var c = 0u; c < STEP_QUADS; c += UNROLL) {
            //#for U in UNROLL
            {
                // The weights of four outputs, transposed to columns. Most devices need no instructions for that.
                //#for Q in QUADS
                let w0_#Q = tile_w[4 * #Q][wide][c + #Uu];
                let w1_#Q = tile_w[4 * #Q + 1][wide][c + #Uu];
                let w2_#Q = tile_w[4 * #Q + 2][wide][c + #Uu];
                let w3_#Q = tile_w[4 * #Q + 3][wide][c + #Uu];
                let wx_#Q = vec4<f32>(w0_#Q.x, w1_#Q.x, w2_#Q.x, w3_#Q.x);
                let wy_#Q = vec4<f32>(w0_#Q.y, w1_#Q.y, w2_#Q.y, w3_#Q.y);
                let wz_#Q = vec4<f32>(w0_#Q.z, w1_#Q.z, w2_#Q.z, w3_#Q.z);
                let ww_#Q = vec4<f32>(w0_#Q.w, w1_#Q.w, w2_#Q.w, w3_#Q.w);
                //#end
                //#for I in ROWS
                let x_#I = tile_x[#I][tall][c + #Uu];
                //#for Q in QUADS
                sum_#I_#Q += x_#I.x * wx_#Q;
                sum_#I_#Q += x_#I.y * wy_#Q;
                sum_#I_#Q += x_#I.z * wz_#Q;
                sum_#I_#Q += x_#I.w * ww_#Q;
                //#end
                //#end
            }
            //#end
        }
    }
    //#for I in ROWS
    //#for Q in QUADS
    put(first_row + #Iu * TALL + tall, first_out + 4u * #Qu * WIDE + wide, sum_#I_#Q);
    //#end
    //#end
}

// Stores four outputs of a row, which are WIDE apart.
fn put(row: u32, first: u32, sums: vec4<f32>) {
    for (var i = 0u; i < 4u; i++) {
        let out = first + i * WIDE;
        if row < n.rows && out < n.outs {
            store(row, out, sums[i]);
        }
    }
}
