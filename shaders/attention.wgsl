// Grouped-query causal attention for many rows, over keys and values that rope_kv wrote (spec 3.3 steps 3 to 5).
// One workgroup per tile of rows, KV head and tile of its heads.
struct Numbers {
    rows: u32,
    heads: u32,
    kv_heads: u32,
    head_dim: u32,
    slots: u32,
    positions: u32,
    window: u32,
    kv_f16: u32,
    scale: f32,
}

@group(0) @binding(0) var<uniform> n: Numbers;
@group(0) @binding(1) var<storage, read> batch: Batch;
@group(0) @binding(2) var<storage, read> qkv: array<vec4<f32>>; // [rows, q: heads | k: kv_heads | v: kv_heads, head_dim], rotated
@group(0) @binding(3) var<storage, read> kv: array<Kv4>; // [slots, positions, k | v, kv_heads, head_dim]
@group(0) @binding(4) var<storage, read_write> y: array<vec4<f32>>; // [rows, heads, head_dim]

@compute @workgroup_size(WG)
fn attention(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let share = n.heads / n.kv_heads; // heads of one KV head
    let head_tiles = (share + TILE_HEADS - 1u) / TILE_HEADS;
    let index = group_index(group, groups);
    let kv_head = index / head_tiles % n.kv_heads;
    let first_head = index % head_tiles * TILE_HEADS; // within the KV head
    let tile = tile_of(index / head_tiles / n.kv_heads, QUERIES / TILE_HEADS);
    if tile.rows == 0u {
        return;
    }
    let position = batch.row[tile.first].position;
    for (var i = local; i < QUERIES * QUADS; i += WG) {
        let q = i / QUADS;
        let row = tile.first + min(q / TILE_HEADS, tile.rows - 1u);
        let head = kv_head * share + min(first_head + q % TILE_HEADS, share - 1u);
        tile_q[i] = qkv[(row * (n.heads + 2u * n.kv_heads) + head) * QUADS + i % QUADS];
    }
    let from_key = select(position - min(position, n.window), 0u, n.window == 0u);
    let out = attend(tile.slot, kv_head, position, from_key, position + tile.rows, local);
    for (var j = 0u; j < SHARE; j++) {
        let i = local + j * WG;
        let q = i / QUADS;
        let head = first_head + q % TILE_HEADS;
        if q / TILE_HEADS < tile.rows && head < share {
            let row = tile.first + q / TILE_HEADS;
            y[(row * n.heads + kv_head * share + head) * QUADS + i % QUADS] = out.sum[j] / out.weight[j];
        }
    }
}
