// Saves the last four raw inputs of every segment in the ring of its slot: position q in entry q % 4. This is a
// dispatch of its own, because the convolution before it still reads the old ring.
struct Numbers {
    channels: u32,
    in_stride: u32,
    in_offset: u32,
    slot_len: u32,
}

@group(0) @binding(0) var<uniform> n: Numbers;
@group(0) @binding(1) var<storage, read> batch: Batch;
@group(0) @binding(2) var<storage, read> p: array<f32>; // [rows, in_stride], inputs from in_offset on
@group(0) @binding(3) var<storage, read_write> state: array<f32>; // [slots, slot_len], a slot begins with [4, channels]

@compute @workgroup_size(WG)
fn conv_tail(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let index = group_index(group, groups);
    let across = (n.channels + WG - 1u) / WG;
    let channel = index % across * WG + local;
    if index / across >= batch.segments || channel >= n.channels {
        return;
    }
    let segment = batch.segment[index / across];
    let end = segment.first + segment.rows;
    for (var row = end - min(segment.rows, 4u); row < end; row++) {
        let entry = batch.row[row].position % 4u;
        state[segment.slot * n.slot_len + entry * n.channels + channel] = p[row * n.in_stride + n.in_offset + channel];
    }
}
