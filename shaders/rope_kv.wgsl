// Rotary embedding of queries and keys, after RMSNorm per head if the model has it (qk norm), and the write of keys and
// values into the slot's memory (spec 3.3). One workgroup per row and head. Rows whose slot is in another buffer are
// left to the dispatch for that buffer.
struct Numbers {
    heads: u32,
    kv_heads: u32,
    head_dim: u32,
    slots: u32,
    first_slot: u32,
    positions: u32,
    qk_norm: u32,
    eps: f32,
}

@group(0) @binding(0) var<uniform> n: Numbers;
@group(0) @binding(1) var<storage, read> batch: Batch;
@group(0) @binding(2) var<storage, read> rotary: array<vec4<f32>>; // [positions, head_dim / 8, 2, 4]
@group(0) @binding(3) var<storage, read> norms: array<vec4<f32>>; // [q | k, head_dim]
@group(0) @binding(4) var<storage, read_write> qkv: array<vec4<f32>>; // [rows, q: heads | k: kv_heads | v: kv_heads, head_dim]
@group(0) @binding(5) var<storage, read_write> kv: array<Kv4>; // [slots, positions, k | v, kv_heads, head_dim]

@compute @workgroup_size(WG)
fn rope_kv(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let all_heads = n.heads + 2u * n.kv_heads;
    let index = min(group_index(group, groups), batch.rows * all_heads - 1u);
    let row = batch.row[index / all_heads];
    let slot = row.slot - n.first_slot;
    if slot >= n.slots {
        return;
    }
    let head = index % all_heads;
    let half = n.head_dim / 8u; // quads in half a head
    let inside = local < half;
    let at = index * 2u * half + local;
    var v = Pairs();
    if inside {
        v = Pairs(qkv[at], qkv[at + half]);
    }
    let is_value = head >= n.heads + n.kv_heads;
    if n.qk_norm == 1u && !is_value {
        let squares = sum1(dot(v.low, v.low) + dot(v.high, v.high), local);
        let rms = sqrt(squares / f32(n.head_dim) + n.eps);
        if inside {
            let w = select(0u, 2u * half, head >= n.heads) + local;
            v = Pairs(v.low / rms * norms[w], v.high / rms * norms[w + half]);
        }
    }
    if !inside {
        return;
    }
    if !is_value {
        v = rotate(v, row.position, local);
    }
    if head < n.heads {
        qkv[at] = v.low;
        qkv[at + half] = v.high;
    } else {
        let place = (slot * n.positions + row.position) * 2u * n.kv_heads + head - n.heads;
        kv[place * 2u * half + local] = kv_pack(v.low);
        kv[place * 2u * half + local + half] = kv_pack(v.high);
    }
}
