// One decode step of Mamba2: convolution, scan and gate (spec 3.4 steps 2 to 6, without the norm). Every segment has
// one row. A workgroup takes 4 QUADS rows of a head. LANES neighbouring threads hold four of these rows of the state
// along d_state, so that the state is read once and written once. Every workgroup computes the convolution of B and C
// by itself. Each thread loads its part of the state before anything else.
struct Numbers {
    heads: u32,
    head_dim: u32,
    d_state: u32,
    in_stride: u32,
    slot_len: u32,
    state_at: u32,
}

@group(0) @binding(0) var<uniform> n: Numbers;
@group(0) @binding(1) var<storage, read> batch: Batch;
@group(0) @binding(2) var<storage, read> p: array<f32>; // [rows, z: d_inner | x: d_inner | B: d_state | C: d_state | dt: heads]
@group(0) @binding(3) var<storage, read> conv: array<vec4<f32>>; // [channels], conv.w multiplies the current input
@group(0) @binding(4) var<storage, read> bias: array<vec4<f32>>; // [channels] / 4
@group(0) @binding(5) var<storage, read> params: array<f32>; // [3, heads]: A, D, dt_bias
@group(0) @binding(6) var<storage, read_write> state: array<vec4<f32>>; // [slots, slot_len] / 4: [4, channels], then at state_at [heads, head_dim, d_state]
@group(0) @binding(7) var<storage, read_write> out: array<vec4<f32>>; // [rows, d_inner] / 4

const QUADS: u32 = WG / LANES;

var<workgroup> inputs: array<vec4<f32>, QUADS + 2u * LANES>; // x of these rows, B, C
var<workgroup> parts: array<vec4<f32>, WG>;

fn four(at: u32) -> vec4<f32> {
    return vec4<f32>(p[at], p[at + 1u], p[at + 2u], p[at + 3u]);
}

// Four channels of the input `back` positions ago, from the ring.
fn before(now: Row, back: u32, channels: u32) -> vec4<f32> {
    if now.position < back {
        return vec4<f32>(0.0);
    }
    let entry = (now.position - back) % 4u;
    return state[now.slot * (n.slot_len / 4u) + entry * ((n.heads * n.head_dim + 2u * n.d_state) / 4u) + channels];
}

// Convolution and silu of channels 4 `quad`... With `keep`, it also writes this row's input into the ring. No thread
// reads that entry of the ring: this row's input comes from `p`.
fn convolve(row: u32, now: Row, quad: u32, keep: bool) -> vec4<f32> {
    let all = (n.heads * n.head_dim + 2u * n.d_state) / 4u;
    let input = four(row * n.in_stride + n.heads * n.head_dim + 4u * quad);
    let w = transpose(mat4x4<f32>(conv[4u * quad], conv[4u * quad + 1u], conv[4u * quad + 2u], conv[4u * quad + 3u]));
    let older = w[0] * before(now, 3u, quad) + w[1] * before(now, 2u, quad) + w[2] * before(now, 1u, quad);
    if keep {
        state[now.slot * (n.slot_len / 4u) + now.position % 4u * all + quad] = input;
    }
    return silu4(bias[quad] + older + w[3] * input);
}

@compute @workgroup_size(WG)
fn ssd_step(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let quads = n.head_dim / 4u;
    let across = (quads + QUADS - 1u) / QUADS;
    let index = group_index(group, groups);
    let first = index % across * QUADS;
    let head = index / across % n.heads;
    let row = index / across / n.heads;
    if row >= batch.rows {
        return;
    }
    let now = batch.row[row];
    let lane = local % LANES;
    let quad = first + local / LANES;
    let places = n.d_state / 4u;
    let mine = lane < places && quad < quads;
    let at = (now.slot * n.slot_len + n.state_at) / 4u + (head * n.head_dim + 4u * quad) * places + lane;
    var s = mat4x4<f32>();
    if mine && now.position > 0u {
        s = mat4x4<f32>(state[at], state[at + places], state[at + 2u * places], state[at + 3u * places]);
    }

    for (var i = local; i < QUADS + 2u * places; i += WG) {
        if i >= QUADS {
            inputs[i] = convolve(row, now, n.heads * quads + i - QUADS, head == 0u && first == 0u);
        } else if first + i < quads {
            inputs[i] = convolve(row, now, head * quads + first + i, true);
        }
    }
    workgroupBarrier();

    let dt = softplus(p[row * n.in_stride + n.in_stride - n.heads + head] + params[2u * n.heads + head]);
    let x = inputs[local / LANES];
    var part = vec4<f32>(0.0);
    if mine {
        s = s * exp(dt * params[head]) + outer(inputs[QUADS + lane], dt * x);
        state[at] = s[0];
        state[at + places] = s[1];
        state[at + 2u * places] = s[2];
        state[at + 3u * places] = s[3];
        part = inputs[QUADS + places + lane] * s;
    }
    parts[local] = part;
    for (var step = LANES / 2u; step > 0u; step = step / 2u) {
        workgroupBarrier();
        if lane < step {
            parts[local] += parts[local + step];
        }
    }
    if lane == 0u && quad < quads {
        let y = parts[local] + params[n.heads + head] * x;
        let z = four(row * n.in_stride + head * n.head_dim + 4u * quad);
        out[(row * n.heads + head) * quads + quad] = y * silu4(z);
    }
}
