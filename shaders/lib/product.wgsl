// Matrix times a few rows of x, shared by every matrix-vector kernel. A workgroup is TEAMS teams of LANES threads. A
// team computes with OUTS rows of the matrix `w`. Its lanes take neighbouring chunks of a matrix row, so that all
// weights are read once and in whole cache lines. They load STEPS chunks of each matrix row at a time, so that many
// loads run at the same time.
//
// With TILED = 1, x goes through workgroup memory, STAGED rows at a time, arranged so that lanes read neighbouring
// four-vectors at the same time. If weights have few bits, reading x from the storage buffer would cost more than
// reading the weights. With TILED = 0, x is read from the storage buffer.
//
// With NORM = 1 the product is with RMSNorm(x), without a dispatch for the norm: W·(x ⊙ scale) / rms(x) needs only the
// sum of squares in addition. `line_of(first, i)` is the i-th matrix row (lib/matvec.wgsl). `norm_of(i)` has four
// weights of the norm (lib/normed.wgsl). Needs const WG = TEAMS * LANES, OUTS, ROWS = BATCHES * STAGED, STEPS, TILED,
// DIRECT = 1 - TILED, NORM, VALUES = ROWS * (OUTS + NORM), a weights_*.wgsl and a lines*.wgsl.
const TILE: u32 = LANES * STEPS; // chunks
//#for T in TILED
const STRIDE: u32 = TILE + 1u; // neighbours in a chunk are in different banks
var<workgroup> tile_x: array<vec4<f32>, STAGED * PER * STRIDE>; // [STAGED rows, PER, chunks]
//#end

fn product(first: u32, local: u32) {
    let count = n.cols / (4u * PER);
    let team = local / LANES;
    let lane = local % LANES;
    //#for O in OUTS
    let line_#O = line_of(first, team * OUTS + #Ou);
    //#end
    //#for B in BATCHES
    //#for R in STAGED
    var squares_#B_#R = 0.0;
    //#for O in OUTS
    var sum_#B_#R_#O = 0.0;
    //#end
    //#end
    //#end
    for (var tile = 0u; tile < count; tile += TILE) {
        //#for S in STEPS
        let k_#S = tile + #Su * LANES + lane;
        //#for O in OUTS
        let chunk_#S_#O = chunk_of(line_#O, min(k_#S, count - 1u));
        //#end
        //#end
        //#for B in BATCHES
        //#for T in TILED
        if tile + #Bu > 0u {
            workgroupBarrier();
        }
        //#for R in STAGED
        for (var i = local; i < TILE * PER; i += WG) {
            var v = vec4<f32>();
            if tile * PER + i < count * PER {
                v = x[((#Bu * STAGED + #Ru) * count + tile) * PER + i];
            }
            if NORM == 1u {
                squares_#B_#R += dot(v, v);
                v *= norm_of(min(tile * PER + i, count * PER - 1u));
            }
            tile_x[(#Ru * PER + i % PER) * STRIDE + i / PER] = v * SPREAD;
        }
        //#end
        workgroupBarrier();
        //#end
        //#for S in STEPS
        //#for R in STAGED
        {
            var total = vec4<f32>();
            //#for I in PER
            //#for T in TILED
            let x_#I = tile_x[(#Ru * PER + #Iu) * STRIDE + #Su * LANES + lane];
            //#end
            //#for D in DIRECT
            var x_#I = vec4<f32>();
            if k_#S < count {
                x_#I = x[((#Bu * STAGED + #Ru) * count + k_#S) * PER + #Iu];
            }
            if NORM == 1u {
                squares_#B_#R += dot(x_#I, x_#I);
                x_#I *= norm_of(min(k_#S, count - 1u) * PER + #Iu);
            }
            x_#I *= SPREAD;
            //#end
            total += x_#I;
            //#end
            let all = dot(total, 1.0 / SPREAD);
            //#for O in OUTS
            {
                var part = 0.0;
                //#for I in PER
                part += dot(quad(chunk_#S_#O, #Iu), x_#I);
                //#end
                sum_#B_#R_#O += product_of(chunk_#S_#O, part, all);
            }
            //#end
        }
        //#end
        //#end
        //#end
    }
    //#for B in BATCHES
    //#for R in STAGED
    if NORM == 1u {
        put(ROWS * OUTS + #Bu * STAGED + #Ru, squares_#B_#R, local);
    }
    //#for O in OUTS
    put((#Bu * STAGED + #Ru) * OUTS + #Ou, sum_#B_#R_#O, local);
    //#end
    //#end
    //#end
    close(local);
}

// The product of a row of x with the i-th matrix row.
fn result(row: u32, i: u32) -> f32 {
    let sum = total(row * OUTS + i % OUTS, i / OUTS);
    if NORM == 0u {
        return sum;
    }
    //#for T in TILED
    let squares = grand_total(ROWS * OUTS + row); // each thread has squares of its share of x
    //#end
    //#for D in DIRECT
    let squares = total(ROWS * OUTS + row, i / OUTS); // each team has read all of x
    //#end
    return sum / sqrt(squares / f32(n.cols) + n.eps);
}
