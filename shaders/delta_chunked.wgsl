// Second half of the chunked delta rule (spec 3.5, WY form): updates the state chunk by chunk. One workgroup per
// (segment, head, some value columns): V' = U - W S; O = (Q S + scores V') / sqrt(head_dim); S = S + Kᵀ V'. See
// lib/delta_chunks.wgsl and lib/delta_chunks_coop.wgsl.
struct Numbers {
    heads: u32,
    head_dim: u32,
    slot_len: u32,
    state_at: u32,
}

@group(0) @binding(0) var<uniform> n: Numbers;
@group(0) @binding(1) var<storage, read> batch: Batch;
@group(0) @binding(2) var<storage, read> qkv: array<vec4<f32>>; // [rows, 3, heads, head_dim / 4]
@group(0) @binding(3) var<storage, read> w: array<vec4<f32>>; // [rows, heads, head_dim / 4]
@group(0) @binding(4) var<storage, read> u: array<vec4<f32>>; // [rows, heads, head_dim / 4]
@group(0) @binding(5) var<storage, read> attn: array<vec4<f32>>; // [rows, heads, CHUNK / 4]
@group(0) @binding(6) var<storage, read_write> state: array<vec4<f32>>; // [slots, slot_len / 4], S at state_at: [heads, key, value / 4]
@group(0) @binding(7) var<storage, read_write> out: array<vec4<f32>>; // [rows, heads, head_dim / 4]

@compute @workgroup_size(WG)
fn delta_chunked(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    delta_chunks(group_index(group, groups), local);
}
