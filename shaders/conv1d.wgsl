// Causal depthwise convolution of four inputs, then silu (spec 3.4 and 3.5, step 2). A thread slides over STRIP rows of
// one channel. Inputs before its first row come from `p` or from the ring of the slot, or are zero.
struct Numbers {
    channels: u32,
    in_stride: u32,
    in_offset: u32,
    slot_len: u32,
}

@group(0) @binding(0) var<uniform> n: Numbers;
@group(0) @binding(1) var<storage, read> batch: Batch;
@group(0) @binding(2) var<storage, read> p: array<f32>; // [rows, in_stride], inputs from in_offset on
@group(0) @binding(3) var<storage, read> w: array<vec4<f32>>; // [channels], w.w multiplies the current input
@group(0) @binding(4) var<storage, read> bias: array<f32>; // [channels]
@group(0) @binding(5) var<storage, read> state: array<f32>; // [slots, slot_len], a slot begins with [4, channels]
@group(0) @binding(6) var<storage, read_write> y: array<f32>; // [rows, channels]

// The input `back` positions before the first row of the tile.
fn before(tile: Tile, back: u32, channel: u32) -> f32 {
    if tile.first >= batch.segment[tile.segment].first + back {
        return p[(tile.first - back) * n.in_stride + n.in_offset + channel];
    }
    let position = batch.row[tile.first].position;
    if position < back {
        return 0.0;
    }
    return state[tile.slot * n.slot_len + ((position - back) % 4u) * n.channels + channel];
}

@compute @workgroup_size(WG)
fn conv1d(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let index = group_index(group, groups);
    let across = (n.channels + WG - 1u) / WG;
    let tile = tile_of(index / across, STRIP);
    let channel = index % across * WG + local;
    if tile.rows == 0u || channel >= n.channels {
        return;
    }
    let weight = w[channel];
    let b = bias[channel];
    var window = vec4<f32>(0.0, before(tile, 3u, channel), before(tile, 2u, channel), before(tile, 1u, channel));
    for (var row = tile.first; row < tile.first + tile.rows; row++) {
        window = vec4<f32>(window.yzw, p[row * n.in_stride + n.in_offset + channel]);
        y[row * n.channels + channel] = silu(b + dot(weight, window));
    }
}
