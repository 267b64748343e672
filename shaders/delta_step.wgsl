// One decode step of DeltaNet, from the joint projection to the normalised heads (spec 3.5 steps 2 to 8). One workgroup
// per (row, head). Every row is the only one of its slot. Thread (group, column) holds four value columns of the key
// rows 4 (group + i GROUPS) .. in registers. So S is read once and written once, in whole cache lines.
struct Numbers {
    heads: u32,
    head_dim: u32,
    in_stride: u32,
    slot_len: u32,
    state_at: u32,
    eps: f32,
}

@group(0) @binding(0) var<uniform> n: Numbers;
@group(0) @binding(1) var<storage, read> batch: Batch;
@group(0) @binding(2) var<storage, read> p: array<f32>; // [rows, in_stride]: q | k | v | raw beta
@group(0) @binding(3) var<storage, read> conv: array<vec4<f32>>; // [3 * heads * head_dim]: four taps, the last for the current input
@group(0) @binding(4) var<storage, read> w: array<vec4<f32>>; // [head_dim / 4]
@group(0) @binding(5) var<storage, read_write> state: array<vec4<f32>>; // [slots, slot_len / 4]: tail [4, 3 * heads * head_dim / 4], S at state_at: [heads, key, value / 4]
@group(0) @binding(6) var<storage, read_write> out: array<vec4<f32>>; // [rows, heads, head_dim / 4]

var<workgroup> head_qkv: array<vec4<f32>, 3u * COLUMNS>; // q | k | v of this head
var<workgroup> part_k: array<vec4<f32>, GROUPS * COLUMNS>; // each group's part of Sᵀk
var<workgroup> part_q: array<vec4<f32>, GROUPS * COLUMNS>; // each group's part of Sᵀq

// The raw input of `age` positions ago. It is zero before position 0.
fn past(tail: u32, position: u32, age: u32, channels: u32) -> vec4<f32> {
    if position < age {
        return vec4<f32>();
    }
    return state[tail + (position - age) % 4u * channels];
}

@compute @workgroup_size(WG)
fn delta_step(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let index = group_index(group, groups);
    let head = index % n.heads;
    let r = index / n.heads;
    if r >= batch.rows {
        return;
    }
    let row = batch.row[r];
    let slot = row.slot * n.slot_len / 4u;
    let column = local % COLUMNS;
    let own = local / COLUMNS; // threads beyond the last group only help with the convolution
    let start = slot + (n.state_at / 4u) + head * n.head_dim * COLUMNS + column;

    // S is loaded first: its loads run while q, k and v are computed.
    //#for I in QUADS
    let quad_#I = min(own + #Iu * GROUPS, COLUMNS - 1u);
    let mine_#I = own < GROUPS && own + #Iu * GROUPS < COLUMNS;
    let at_#I = start + 4u * quad_#I * COLUMNS;
    var s_#I = mat4x4<f32>();
    if mine_#I && row.position != 0u {
        s_#I = mat4x4<f32>(state[at_#I], state[at_#I + COLUMNS], state[at_#I + 2u * COLUMNS], state[at_#I + 3u * COLUMNS]);
    }
    //#end

    // Convolution and silu of this head's q, k and v, four channels at a time.
    let channels = 3u * n.heads * COLUMNS;
    for (var i = local; i < 3u * COLUMNS; i += WG) {
        let quad = (i / COLUMNS * n.heads + head) * COLUMNS + i % COLUMNS;
        let source = r * n.in_stride + 4u * quad;
        let x = vec4<f32>(p[source], p[source + 1u], p[source + 2u], p[source + 3u]);
        let tail = slot + quad;
        let taps = transpose(mat4x4<f32>(conv[4u * quad], conv[4u * quad + 1u], conv[4u * quad + 2u], conv[4u * quad + 3u]));
        var y = taps[3] * x;
        y += taps[2] * past(tail, row.position, 1u, channels);
        y += taps[1] * past(tail, row.position, 2u, channels);
        y += taps[0] * past(tail, row.position, 3u, channels);
        state[tail + row.position % 4u * channels] = x;
        // The bound keeps exp finite. Below -80 silu is practically zero.
        head_qkv[i] = y / (1.0 + exp(-max(y, vec4<f32>(-80.0))));
    }
    workgroupBarrier();

    // The norms of q and k (step 4), and q·k.
    var part = vec4<f32>();
    for (var i = local; i < COLUMNS; i += WG) {
        let q = head_qkv[i];
        let k = head_qkv[COLUMNS + i];
        part += vec4<f32>(dot(q, q), dot(k, k), dot(q, k), 0.0);
    }
    let sums = sum4(part, local);
    let q_scale = 1.0 / sqrt(sums.x + 1e-6);
    let k_scale = 1.0 / sqrt(sums.y + 1e-6);

    if own < GROUPS {
        var k_part = vec4<f32>();
        var q_part = vec4<f32>();
        //#for I in QUADS
        q_part += s_#I * head_qkv[quad_#I];
        k_part += s_#I * head_qkv[COLUMNS + quad_#I];
        //#end
        part_k[local] = k_part * k_scale;
        part_q[local] = q_part * q_scale;
    }
    workgroupBarrier();

    // The delta rule (step 7), out = (Sᵀq + d (k·q)) / sqrt(head_dim). Every group computes it for itself.
    var o = vec4<f32>();
    if own < GROUPS {
        var sk = vec4<f32>();
        var sq = vec4<f32>();
        //#for G in GROUPS
        sk += part_k[#Gu * COLUMNS + column];
        sq += part_q[#Gu * COLUMNS + column];
        //#end
        let raw = max(p[r * n.in_stride + 4u * channels + head], -80.0);
        let d = (head_qkv[2u * COLUMNS + column] - sk) / (1.0 + exp(-raw));
        o = (sq + d * (sums.z * q_scale * k_scale)) / sqrt(f32(n.head_dim));
        //#for I in QUADS
        if mine_#I {
            s_#I += outer(d, head_qkv[COLUMNS + quad_#I] * k_scale);
            state[at_#I] = s_#I[0];
            state[at_#I + COLUMNS] = s_#I[1];
            state[at_#I + 2u * COLUMNS] = s_#I[2];
            state[at_#I + 3u * COLUMNS] = s_#I[3];
        }
        //#end
    }

    // The head norm (step 8).
    let square = sum1(select(0.0, dot(o, o), own == 0u), local);
    if own == 0u {
        out[(r * n.heads + head) * COLUMNS + column] = o / sqrt(square / f32(n.head_dim) + n.eps) * w[column];
    }
}
