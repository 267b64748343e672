// Matrix times many rows with cooperative matrices (tensor cores): f16 products, f32 sums. A workgroup of TALL × WIDE ×
// DEEP subgroups of 32 threads computes a tile of TILE_ROWS rows × TILE_OUTS outputs. STEP columns are in workgroup
// memory at a time. A subgroup computes 16 ROWS × 16 OUTS of the tile in matrices of 16 × 16, over one of DEEP shares
// of the columns. The shares are added at the end. So even a tile with few outputs, of which a large device needs many,
// loads many weights at the same time. A thread loads the columns of the next AHEAD steps before it computes with these, so
// that the loads run meanwhile. x is divided by 16 and w multiplied by 16 when they are converted to f16. So x may reach a million
// before it is clamped, and loses bits only below 0.001; bf16 weights from 4e-6 to 4094 are exact, and larger ones make
// the results infinite, which the engine reports; and the product needs no factor.
//
// Rows in workgroup memory are arrays of groups of 16 bytes. So the compiler sees that matrices begin at multiples of 16
// bytes, which a check of a plain array's index would hide, and loads them with wide instructions.
//
// Constants: WG, TILE_ROWS = 16 ROWS · TALL, TILE_OUTS = 16 OUTS · WIDE, STEP = 16 SLICES · DEEP, LOADS_X and LOADS_W
// (loads of a thread per step), X_F16 (1 if x is in f16 already) and X_F32 = 1 - X_F16, DIRECT (1 if DEEP is 1 and results go
// to y as they are, or are added to it), and with DIRECT also ADDED (1 if they are added). The kernel has `store`, which stores an output. weights_*.wgsl reads w.
const STEP_QUADS: u32 = STEP / 4u;
const EIGHTS: u32 = STEP / 8u;
// One group more than is used, so that neighbouring rows are in different banks of workgroup memory.
const GROUPS: u32 = EIGHTS + 1u;
const PITCH: u32 = 2u * GROUPS;
const PLACES: u32 = TALL * WIDE;
const RANGE: f32 = 16.0;
const LARGEST: vec4<f32> = vec4<f32>(65504.0);

alias Group = array<vec4<f16>, 2>;

var<workgroup> all_inside: u32; // whether the whole tile is inside of y
var<workgroup> tile_x: array<array<Group, GROUPS>, TILE_ROWS>; // [TILE_ROWS, STEP / 8]
var<workgroup> tile_w: array<array<Group, GROUPS>, TILE_OUTS>; // [TILE_OUTS, STEP / 8]
var<workgroup> tile_y: array<array<f32, 256>, DEEP * PLACES>; // [DEEP, TALL, WIDE, 16 rows × 16 outputs]

fn matmul_tile(group: vec3<u32>, local: u32) {
    let first_row = group.x * TILE_ROWS;
    let first_out = group.y * TILE_OUTS;
    let subgroup = local / 32u;
    // Where the subgroup's part of the tile begins, and where its share of the columns begins.
    let row = subgroup % PLACES / WIDE * (16u * ROWS);
    let out = subgroup % WIDE * (16u * OUTS);
    let share = subgroup / PLACES * (2u * SLICES);
    // Cooperative matrices are loaded only in control flow that is the same for all threads, as the compiler can see.
    if local == 0u {
        all_inside = u32(first_row + TILE_ROWS <= n.rows && first_out + TILE_OUTS <= n.outs);
    }
    let whole = workgroupUniformLoad(&all_inside) != 0u;
    let stride = n.stride;
    //#for I in ROWS
    //#for O in OUTS
    let y_#I_#O = (first_row + row + 16u * #Iu) * stride + n.first + first_out + out + 16u * #Ou;
    var sum_#I_#O = coop_mat16x16<f32, C>();
    //#end
    //#end
    //#for A in ADDED
    if whole {
        //#for I in ROWS
        //#for O in OUTS
        sum_#I_#O = coopLoadT<coop_mat16x16<f32, C>>(&y[y_#I_#O], stride);
        //#end
        //#end
    }
    //#end
    //#for L in LOADS_X
    let x_at_#L = local + #Lu * WG;
    //#end
    //#for L in LOADS_W
    let w_at_#L = local + #Lu * WG;
    //#end
    //#for P in AHEAD
    //#for L in LOADS_X
    var next_x_#P_#L = x_quad(first_row + x_at_#L / STEP_QUADS, #Pu * STEP + x_at_#L % STEP_QUADS * 4u);
    //#end
    //#for L in LOADS_W
    var next_w_#P_#L = w_eight(first_out + w_at_#L / EIGHTS, #Pu * STEP + w_at_#L % EIGHTS * 8u);
    //#end
    //#end
    for (var start = 0u; start < n.cols; start += AHEAD * STEP) {
        //#for P in AHEAD
        {
            workgroupBarrier();
            //#for L in LOADS_X
            if x_at_#L < TILE_ROWS * STEP_QUADS {
                let quad = x_at_#L % STEP_QUADS;
                //#for F in X_F32
                tile_x[x_at_#L / STEP_QUADS][quad / 2u][quad % 2u] = vec4<f16>(clamp(next_x_#P_#L / RANGE, -LARGEST, LARGEST));
                //#end
                //#for F in X_F16
                tile_x[x_at_#L / STEP_QUADS][quad / 2u][quad % 2u] = next_x_#P_#L;
                //#end
            }
            //#end
            //#for L in LOADS_W
            if w_at_#L < TILE_OUTS * EIGHTS {
                let low = vec4<f16>(weights(next_w_#P_#L, 0u) * RANGE);
                let high = vec4<f16>(weights(next_w_#P_#L, 1u) * RANGE);
                tile_w[w_at_#L / EIGHTS][w_at_#L % EIGHTS] = Group(low, high);
            }
            //#end
            workgroupBarrier();
            let then_#P = start + (AHEAD + #Pu) * STEP;
            //#for L in LOADS_X
            next_x_#P_#L = x_quad(first_row + x_at_#L / STEP_QUADS, then_#P + x_at_#L % STEP_QUADS * 4u);
            //#end
            //#for L in LOADS_W
            next_w_#P_#L = w_eight(first_out + w_at_#L / EIGHTS, then_#P + w_at_#L % EIGHTS * 8u);
            //#end
            //#for U in SLICES
            {
                // 16 columns. The matrix of x is read by rows. w has outputs as rows, and is read by columns.
                //#for I in ROWS
                let x_#I = coopLoadT<coop_mat16x16<f16, A>>(&tile_x[row + 16u * #Iu][share + 2u * #Uu][0], PITCH);
                //#end
                //#for O in OUTS
                let w_#O = coopLoad<coop_mat16x16<f16, B>>(&tile_w[out + 16u * #Ou][share + 2u * #Uu][0], PITCH);
                //#for I in ROWS
                sum_#I_#O = coopMultiplyAdd(x_#I, w_#O, sum_#I_#O);
                //#end
                //#end
            }
            //#end
        }
        //#end
    }
    //#for D in DIRECT
    if whole {
        //#for I in ROWS
        //#for O in OUTS
        coopStoreT(sum_#I_#O, &y[y_#I_#O], stride);
        //#end
        //#end
        return;
    }
    //#end
    // The matrices of all subgroups are stored, one after the other, through 16 × 16 numbers of workgroup memory per
    // subgroup.
    //#for I in ROWS
    //#for O in OUTS
    workgroupBarrier();
    coopStoreT(sum_#I_#O, &tile_y[subgroup][0], 16u);
    workgroupBarrier();
    put(first_row + 16u * #Iu, first_out + 16u * #Ou, local);
    //#end
    //#end
}

// Adds the shares of the matrices that the subgroups have in workgroup memory, and stores the sums. These matrices are
// 16 ROWS and 16 OUTS apart.
fn put(first_row: u32, first_out: u32, local: u32) {
    for (var i = local; i < PLACES * 256u; i += WG) {
        let row = first_row + i / 256u / WIDE * (16u * ROWS) + i % 256u / 16u;
        let out = first_out + i / 256u % WIDE * (16u * OUTS) + i % 16u;
        if row < n.rows && out < n.outs {
            var sum = 0.0;
            //#for D in DEEP
            sum += tile_y[#Du * PLACES + i / 256u][i % 256u];
            //#end
            store(row, out, sum);
        }
    }
}
