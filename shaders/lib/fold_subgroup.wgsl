// The same sums as in fold.wgsl, for a workgroup that is one subgroup or a part of one. It needs no barrier.
//#for W in FOLD_WIDE
// Four vec4s over at least sixteen threads. Thread i gets the i-th sum. In every step a thread gives half of its values
// to its partner and takes the partner's other half. So sixteen sums need sixteen exchanges instead of eighty.
var<private> fold_kept: f32;

fn fold(values: array<vec4<f32>, TOKENS>, local: u32) {
    let a = (local & 8u) != 0u;
    let b = (local & 4u) != 0u;
    let c = (local & 2u) != 0u;
    let d = (local & 1u) != 0u;
    let first = select(values[0], values[2], a) + subgroupShuffleXor(select(values[2], values[0], a), 8u);
    let second = select(values[1], values[3], a) + subgroupShuffleXor(select(values[3], values[1], a), 8u);
    let four = select(first, second, b) + subgroupShuffleXor(select(second, first, b), 4u);
    let two = select(four.xy, four.zw, c) + subgroupShuffleXor(select(four.zw, four.xy, c), 2u);
    var one = select(two.x, two.y, d) + subgroupShuffleXor(select(two.y, two.x, d), 1u);
    for (var step = 16u; step < WG; step = step * 2u) {
        one += subgroupShuffleXor(one, step);
    }
    fold_kept = one;
}

fn folded(i: u32) -> f32 {
    return fold_kept;
}
//#end
//#for N in FOLD_NARROW
var<private> fold_kept: array<vec4<f32>, TOKENS>;

fn fold(values: array<vec4<f32>, TOKENS>, local: u32) {
    //#for T in TOKENS
    fold_kept[#T] = subgroupAdd(values[#T]);
    //#end
}

fn folded(i: u32) -> f32 {
    return fold_kept[i / 4u][i % 4u];
}
//#end
