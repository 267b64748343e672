// Writes random words into a part of a matrix. They depend only on the seed, not on the device. A word is two bf16 from
// -32768 step to 32767 step, or the random bits themselves. One thread per word.
struct Numbers {
    at: u32,
    words: u32,
    first: u32,
    seed: u32,
    step: f32,
    raw: u32,
}

@group(0) @binding(0) var<uniform> n: Numbers;
@group(0) @binding(1) var<storage, read_write> w: array<u32>; // [at + words]

// PCG's output permutation, applied to a counter.
fn hash(value: u32) -> u32 {
    let state = value * 747796405u + 2891336453u;
    let word = ((state >> ((state >> 28u) + 4u)) ^ state) * 277803737u;
    return (word >> 22u) ^ word;
}

fn bf16_bits(sixteen: u32) -> u32 {
    return bitcast<u32>((f32(sixteen) - 32768.0) * n.step) >> 16u;
}

@compute @workgroup_size(WG)
fn random_weights(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = group_index(group, groups) * WG + local;
    if i >= n.words {
        return;
    }
    let bits = hash(hash(n.first + i) ^ n.seed);
    let pair = bf16_bits(bits & 0xffffu) | (bf16_bits(bits >> 16u) << 16u);
    w[n.at + i] = select(pair, bits, n.raw == 1u);
}
