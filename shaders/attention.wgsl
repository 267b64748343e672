// Grouped-query causal attention for many rows, over keys and values that rope_kv wrote (spec 3.3 steps 3 to 5), with a
// running softmax. A workgroup computes one tile of rows for one KV head and one tile of that head's query heads. These
// are QUERIES queries: query q has row `q / TILE_HEADS` and head `q % TILE_HEADS` of the tile. `attend` is that of
// lib/attend.wgsl, or of lib/attend_coop.wgsl if `Attention::coop` (core/src/ops/attention.rs) says so. Needs const
// HEAD_DIM, QUERIES, TILE_HEADS, WG, and those of `attend`.
struct Numbers {
    heads: u32,
    kv_heads: u32,
    slots: u32,
    first_slot: u32,
    positions: u32,
    window: u32,
    scale: f32,
}

@group(0) @binding(0) var<uniform> n: Numbers;
@group(0) @binding(1) var<storage, read> batch: Batch;
@group(0) @binding(2) var<storage, read> qkv: array<vec4<f32>>; // [rows, q: heads | k: kv_heads | v: kv_heads, head_dim], rotated
@group(0) @binding(3) var<storage, read> kv: array<Kv4>; // [slots, positions, k | v, kv_heads, head_dim]
@group(0) @binding(4) var<storage, read_write> y: array<Row4>; // [rows, heads, head_dim], see lib/rows_*.wgsl

const QUADS: u32 = HEAD_DIM / 4u;

@compute @workgroup_size(WG)
fn attention(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    attend(group_index(group, groups), local);
}
