// Joins the splits of attention_step: the mean of their results, weighted under their common maximum. One workgroup per
// (row, head). It has TEAMS teams of QUADS threads, one thread for each quad (four-vector) of a head. A team takes
// AT_ONCE splits at a time, and the teams' results are merged at the end. The results of empty splits are ignored, even
// if they are NaN.
struct Numbers {
    rows: u32,
    heads: u32,
    splits: u32,
}

@group(0) @binding(0) var<uniform> n: Numbers;
@group(0) @binding(1) var<storage, read> parts: array<vec4<f32>>; // [rows, heads, splits, head_dim]
@group(0) @binding(2) var<storage, read> weights: array<vec2<f32>>; // [rows, heads, splits]: maximum in powers of two, sum
@group(0) @binding(3) var<storage, read_write> y: array<vec4<f32>>; // [rows, heads, head_dim]

// NOTHING is the maximum before the first split. MASKED is the maximum of an empty split, whose weight is 0 even under
// NOTHING.
const NOTHING: f32 = -1.0e30;
const MASKED: f32 = -3.0e38;

var<workgroup> sums: array<vec4<f32>, TEAMS * QUADS>; // [TEAMS, QUADS]
var<workgroup> ends: array<vec2<f32>, TEAMS>; // maximum, sum of weights

@compute @workgroup_size(WG)
fn attention_join(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let head = group_index(group, groups); // index among the heads of all rows
    if head >= n.rows * n.heads {
        return;
    }
    let team = local / QUADS;
    let quad = local % QUADS;
    var top = NOTHING;
    var weight = 0.0;
    var sum = vec4<f32>();
    for (var first = team; first < n.splits; first += TEAMS * AT_ONCE) {
        var now = top;
        //#for I in AT_ONCE
        let at_#I = head * n.splits + min(first + #Iu * TEAMS, n.splits - 1u);
        let weight_#I = weights[at_#I];
        let part_#I = parts[at_#I * QUADS + quad];
        let counts_#I = first + #Iu * TEAMS < n.splits && weight_#I.y > 0.0;
        let top_#I = select(MASKED, weight_#I.x, counts_#I);
        now = max(now, top_#I);
        //#end
        let shrink = exp2(top - now);
        top = now;
        weight *= shrink;
        sum *= shrink;
        //#for I in AT_ONCE
        if counts_#I {
            let scale = exp2(top_#I - now);
            weight += weight_#I.y * scale;
            sum += part_#I * scale;
        }
        //#end
    }
    //#for A in ALONE
    y[head * QUADS + quad] = sum / weight;
    //#end
    //#for T in TOGETHER
    sums[local] = sum;
    if quad == 0u {
        ends[team] = vec2<f32>(top, weight);
    }
    workgroupBarrier();
    if local < QUADS {
        //#for I in TEAMS
        let end_#I = ends[#I];
        top = max(top, end_#I.x);
        //#end
        weight = 0.0;
        sum = vec4<f32>();
        //#for I in TEAMS
        let scale_#I = exp2(end_#I.x - top);
        weight += end_#I.y * scale_#I;
        sum += sums[#Iu * QUADS + local] * scale_#I;
        //#end
        y[head * QUADS + local] = sum / weight;
    }
    //#end
}
