// Second half of the chunked delta rule (spec 3.5, WY form): updates the state chunk by chunk. One workgroup per
// (segment, head, some value columns): V' = U - W S; O = (Q S + scores V') / sqrt(head_dim); S = S + Kᵀ V'. Thread (row,
// column) has one row of the chunk and four value columns. S stays in workgroup memory. `delta_carry` computes the same with
// cooperative matrices.
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

const SLICE: u32 = 4u; // vec4s of a row of W and of Q that are staged at a time
const SCORES: u32 = CHUNK / 4u; // vec4s of a row of scores
// The slice of W is followed by the slice of Q. The scores need the same room later.
const STAGED: u32 = CHUNK * SLICE;

var<workgroup> s: array<vec4<f32>, KEYS * COLS>; // [key rows, rounded up to whole slices; COLS]
var<workgroup> rest: array<vec4<f32>, CHUNK * COLS>; // V'
var<workgroup> staged: array<vec4<f32>, 2u * STAGED>;

// Four key rows of S at this thread's columns.
fn four_keys(key: u32, column: u32) -> mat4x4<f32> {
    let at = key * COLS + column;
    return mat4x4<f32>(s[at], s[at + COLS], s[at + 2u * COLS], s[at + 3u * COLS]);
}

fn delta_chunks(index: u32, local: u32) {
    let quads = n.head_dim / 4u;
    let parts = quads / COLS;
    let first_column = index % parts * COLS;
    let head = index / parts % n.heads;
    let number = index / parts / n.heads;
    if number >= batch.segments {
        return;
    }
    let segment = batch.segment[number];
    if segment.rows == 0u {
        return;
    }
    let row = local / COLS;
    let column = local % COLS;
    let start = (segment.slot * n.slot_len + n.state_at) / 4u + head * n.head_dim * quads + first_column;
    let resumed = batch.row[segment.first].position != 0u;
    for (var at = local; at < KEYS * COLS; at += WG) {
        let key = at / COLS;
        s[at] = vec4<f32>();
        if resumed && key < n.head_dim {
            s[at] = state[start + key * quads + at % COLS];
        }
    }

    let scale = 1.0 / sqrt(f32(n.head_dim));
    for (var begin = 0u; begin < segment.rows; begin += CHUNK) {
        let first = segment.first + begin;
        // Rows beyond the chunk repeat its last row, and do not contribute.
        let last = min(CHUNK, segment.rows - begin) - 1u;
        let inside = row <= last;
        let own = (first + min(row, last)) * n.heads + head;

        // W S and Q S.
        var ws = vec4<f32>();
        var qs = vec4<f32>();
        for (var slice = 0u; slice < quads; slice += SLICE) {
            workgroupBarrier();
            for (var at = local; at < STAGED; at += WG) {
                let r = first + min(at / SLICE, last);
                let quad = slice + at % SLICE;
                let source = min(quad, quads - 1u);
                staged[at] = select(vec4<f32>(), w[(r * n.heads + head) * quads + source], quad < quads);
                staged[STAGED + at] = select(vec4<f32>(), qkv[(r * 3u * n.heads + head) * quads + source], quad < quads);
            }
            workgroupBarrier();
            for (var x = 0u; x < SLICE; x++) {
                let tile = four_keys(4u * (slice + x), column);
                ws += tile * staged[row * SLICE + x];
                qs += tile * staged[STAGED + row * SLICE + x];
            }
        }

        // V' = U - W S
        let v = u[own * quads + first_column + column] - ws;
        rest[local] = select(vec4<f32>(), v, inside);
        workgroupBarrier();
        for (var at = local; at < CHUNK * SCORES; at += WG) {
            staged[at] = attn[((first + min(at / SCORES, last)) * n.heads + head) * SCORES + at % SCORES];
        }
        workgroupBarrier();

        // O = (Q S + scores V') / sqrt(head_dim)
        if inside {
            for (var x = 0u; x < SCORES; x++) {
                let at = 4u * x * COLS + column;
                let four = mat4x4<f32>(rest[at], rest[at + COLS], rest[at + 2u * COLS], rest[at + 3u * COLS]);
                qs += four * staged[row * SCORES + x];
            }
            out[own * quads + first_column + column] = qs * scale;
        }

        // S = S + Kᵀ V': each thread updates four key rows of its columns at a time.
        for (var quad = row; quad < quads; quad += CHUNK) {
            var tile = four_keys(4u * quad, column);
            let k = (n.heads + head) * quads + quad;
            let stride = 3u * n.heads * quads;
            for (var r = 0u; r <= last; r += 4u) {
                // V' is zero beyond the last row, and K of the repeated last row is finite.
                let k0 = qkv[k + (first + r) * stride];
                let k1 = qkv[k + (first + min(r + 1u, last)) * stride];
                let k2 = qkv[k + (first + min(r + 2u, last)) * stride];
                let k3 = qkv[k + (first + min(r + 3u, last)) * stride];
                let at = r * COLS + column;
                tile += outer(rest[at], k0);
                tile += outer(rest[at + COLS], k1);
                tile += outer(rest[at + 2u * COLS], k2);
                tile += outer(rest[at + 3u * COLS], k3);
            }
            let at = 4u * quad * COLS + column;
            s[at] = tile[0];
            s[at + COLS] = tile[1];
            s[at + 2u * COLS] = tile[2];
            s[at + 3u * COLS] = tile[3];
        }
    }

    workgroupBarrier();
    for (var at = local; at < n.head_dim * COLS; at += WG) {
        state[start + at / COLS * quads + at % COLS] = s[at];
    }
}

@compute @workgroup_size(WG)
fn delta_chunked(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    delta_chunks(group_index(group, groups), local);
}
