// One decode step of attention in one dispatch: qk norm, rotary embedding, the write of the new key and value,
// and attention over a share of the keys (spec 3.3). Every row is a segment of its own. One workgroup per row, KV
// head and split; the splits' results are joined by attention_join. A split takes whole tiles of keys, so the
// number of splits is fixed and short contexts leave the later ones empty.
struct Numbers {
    rows: u32,
    heads: u32,
    kv_heads: u32,
    head_dim: u32,
    slots: u32,
    positions: u32,
    window: u32,
    qk_norm: u32,
    kv_f16: u32,
    splits: u32,
    scale: f32,
    eps: f32,
}

@group(0) @binding(0) var<uniform> n: Numbers;
@group(0) @binding(1) var<storage, read> batch: Batch;
@group(0) @binding(2) var<storage, read> rotary: array<vec4<f32>>; // [positions, head_dim / 8, 2, 4]
@group(0) @binding(3) var<storage, read> norms: array<vec4<f32>>; // [q | k, head_dim]
@group(0) @binding(4) var<storage, read> qkv: array<vec4<f32>>; // [rows, q: heads | k: kv_heads | v: kv_heads, head_dim], as projected
@group(0) @binding(5) var<storage, read_write> kv: array<Kv4>; // [slots, positions, k | v, kv_heads, head_dim]
@group(0) @binding(6) var<storage, read_write> y: array<vec4<f32>>; // [rows, heads, SPLITS, head_dim]; normalised where SPLITS is 1
@group(0) @binding(7) var<storage, read_write> weights: array<vec2<f32>>; // [rows, heads, SPLITS]: maximum, sum

const HALF: u32 = QUADS / 2u;
// The new row's heads that a workgroup prepares: its queries and the new key.
var<workgroup> rms: array<f32, QUERIES + 1u>;

fn line_of(row: u32, head: u32) -> u32 {
    return (row * (n.heads + 2u * n.kv_heads) + head) * QUADS;
}

@compute @workgroup_size(WG)
fn attention_step(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let share = TILE_HEADS; // all heads of one KV head
    let index = group_index(group, groups);
    let split = index % SPLITS;
    let kv_head = index / SPLITS % n.kv_heads;
    let r = index / SPLITS / n.kv_heads;
    if r >= batch.rows {
        return;
    }
    let row = batch.row[r];
    let oldest = select(row.position - min(row.position, n.window), 0u, n.window == 0u);
    let tiles = (row.position + 1u - oldest + KEYS - 1u) / KEYS;
    let per_split = (tiles + SPLITS - 1u) / SPLITS * KEYS;
    let from_key = min(oldest + split * per_split, row.position + 1u);
    let to_key = min(from_key + per_split, row.position + 1u);
    let is_last = from_key <= row.position && row.position < to_key;

    if n.qk_norm == 1u && local <= share {
        let line = line_of(r, select(kv_head * share + local, n.heads + kv_head, local == share));
        var squares = 0.0;
        for (var i = 0u; i < QUADS; i++) {
            squares += dot(qkv[line + i], qkv[line + i]);
        }
        rms[local] = sqrt(squares / f32(HEAD_DIM) + n.eps);
    }
    workgroupBarrier();
    // Queries, then the key as one more head where this split owns the new position.
    for (var i = local; i < (QUERIES + 1u) * HALF; i += WG) {
        let q = i / HALF;
        let quad = i % HALF;
        let is_key = q == QUERIES;
        if is_key && !is_last {
            continue;
        }
        let line = line_of(r, select(kv_head * share + min(q, share - 1u), n.heads + kv_head, is_key)) + quad;
        var v = Pairs(qkv[line], qkv[line + HALF]);
        if n.qk_norm == 1u {
            let w = select(0u, QUADS, is_key) + quad;
            let scale = rms[select(min(q, share - 1u), share, is_key)];
            v = Pairs(v.low / scale * norms[w], v.high / scale * norms[w + HALF]);
        }
        v = rotate(v, row.position, quad);
        if is_key {
            let at = key_at(row.slot, row.position, kv_head) + quad;
            kv[at] = kv_pack(v.low);
            kv[at + HALF] = kv_pack(v.high);
        } else {
            tile_q[q * QUADS + quad] = v.low;
            tile_q[q * QUADS + quad + HALF] = v.high;
        }
    }
    if is_last {
        for (var i = local; i < QUADS; i += WG) {
            let at = key_at(row.slot, row.position, kv_head) + n.kv_heads * QUADS + i;
            kv[at] = kv_pack(qkv[line_of(r, n.heads + n.kv_heads + kv_head) + i]);
        }
    }
    storageBarrier();
    let out = attend(row.slot, kv_head, row.position, from_key, to_key, local);
    for (var j = 0u; j < SHARE; j++) {
        let i = local + j * WG;
        let q = i / QUADS;
        if q < share {
            let at = (r * n.heads + kv_head * share + q) * SPLITS + split;
            if SPLITS == 1u {
                y[at * QUADS + i % QUADS] = out.sum[j] / out.weight[j];
            } else {
                y[at * QUADS + i % QUADS] = out.sum[j];
                if i % QUADS == 0u {
                    // An empty split weighs nothing, whatever its maximum.
                    weights[at] = vec2<f32>(select(0.0, top[q], out.weight[j] > 0.0), out.weight[j]);
                }
            }
        }
    }
}
