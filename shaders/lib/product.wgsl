// Matrix times a few vectors, shared by every matvec kernel. A workgroup is TEAMS teams of LANES threads; a team takes
// OUTS lines of `w`, its lanes side by side along them, so that all weights are read once and in whole cache lines, STEPS
// chunks of each line at a time, so that many loads are under way.
//
// TILED = 1: x comes through workgroup memory, STAGED rows at a time, where the four-vectors that lanes read at once lie
// side by side. With few bits in a weight, reading x from where it is would cost more than the weights. TILED = 0: it is
// read from where it is.
//
// With NORM = 1 the product is with RMSNorm(x), at no step of its own: W·(x ⊙ scale) / rms(x) needs only the sum of
// squares. `line_of(first, i)` is the i-th line (lib/matvec.wgsl), `norm_of(i)` are four of the norm's weights
// (lib/normed.wgsl). Needs const WG = TEAMS * LANES, OUTS, ROWS = BATCHES * STAGED, STEPS, TILED, DIRECT = 1 - TILED, NORM, VALUES =
// ROWS * (OUTS + NORM), a weights_*.wgsl and a lines*.wgsl.
const TILE: u32 = LANES * STEPS; // chunks
//#for T in TILED
const STRIDE: u32 = TILE + 1u; // neighbours in a chunk lie in different banks
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

// The product of a row with the i-th line.
fn result(row: u32, i: u32) -> f32 {
    let sum = total(row * OUTS + i % OUTS, i / OUTS);
    if NORM == 0u {
        return sum;
    }
    //#for T in TILED
    let squares = grand_total(ROWS * OUTS + row); // every thread brought its share of x
    //#end
    //#for D in DIRECT
    let squares = total(ROWS * OUTS + row, i / OUTS); // every team read x
    //#end
    return sum / sqrt(squares / f32(n.cols) + n.eps);
}
