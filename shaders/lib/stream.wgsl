// Matrix times one vector, which lies in workgroup memory as a whole: the same functions as product.wgsl, for the same
// kernels. A team takes OUTS lines in TURNS turns of ONCE, and asks for the chunks that come next before it works on these,
// across turns too, so that memory and arithmetic are busy at the same time. This is what few bits in a weight need: all
// weights of a workgroup arrive together otherwise, and then nothing arrives while it computes.
// Needs const WG = TEAMS * LANES, OUTS = ONCE * TURNS, CHUNKS of a line, STEPS of LANES chunks each, NORM, VALUES = OUTS + NORM, ROWS = 1, a
// weights_*.wgsl and a lines*.wgsl.
const STRIDE: u32 = CHUNKS + 1u; // neighbours in a chunk lie in different banks
var<workgroup> row_x: array<vec4<f32>, PER * STRIDE>; // [PER, CHUNKS]
var<workgroup> sum_x: array<f32, CHUNKS>; // of each chunk

fn product(first: u32, local: u32) {
    let team = local / LANES;
    let lane = local % LANES;
    //#for O in ONCE
    var next_#O = chunk_of(line_of(first, team * OUTS + #Ou), min(lane, CHUNKS - 1u));
    var sum_#O = 0.0;
    //#end
    var squares = 0.0;
    for (var i = local; i < CHUNKS * PER; i += WG) {
        var v = x[i];
        if NORM == 1u {
            squares += dot(v, v);
            v *= norm_of(i);
        }
        row_x[i % PER * STRIDE + i / PER] = v * SPREAD;
    }
    workgroupBarrier();
    for (var k = local; k < CHUNKS; k += WG) {
        var sum = vec4<f32>();
        //#for I in PER
        sum += row_x[#Iu * STRIDE + k];
        //#end
        sum_x[k] = dot(sum, 1.0 / SPREAD);
    }
    workgroupBarrier();
    for (var step = 0u; step < TURNS * STEPS; step++) {
        let turn = (step + 1u) / STEPS;
        let then = min((step + 1u) % STEPS * LANES + lane, CHUNKS - 1u);
        //#for O in ONCE
        let chunk_#O = next_#O;
        next_#O = chunk_of(line_of(first, team * OUTS + min(turn, TURNS - 1u) * ONCE + #Ou), then);
        //#end
        let k = step % STEPS * LANES + lane;
        if k < CHUNKS {
            let all = sum_x[k];
            //#for O in ONCE
            var part_#O = 0.0;
            //#end
            //#for I in PER
            let x_#I = row_x[#Iu * STRIDE + k];
            //#for O in ONCE
            part_#O += dot(quad(chunk_#O, #Iu), x_#I);
            //#end
            //#end
            //#for O in ONCE
            sum_#O += product_of(chunk_#O, part_#O, all);
            //#end
        }
        if turn > step / STEPS {
            //#for O in ONCE
            put(step / STEPS * ONCE + #Ou, sum_#O, local);
            sum_#O = 0.0;
            //#end
        }
    }
    if NORM == 1u {
        put(OUTS, squares, local);
    }
    close(local);
}

// The product of the row with the i-th line.
fn result(row: u32, i: u32) -> f32 {
    let sum = total(i % OUTS, i / OUTS);
    if NORM == 0u {
        return sum;
    }
    return sum / sqrt(grand_total(OUTS) / f32(n.cols) + n.eps);
}
