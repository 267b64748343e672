// The delta rule token by token (spec 3.5 steps 6 and 7). One workgroup per (segment, head, four value columns). The
// state stays in registers: a thread holds QUADS tiles of 4 key rows x 4 value columns. A tile is a matrix whose column
// j is key row j, so that `tile * k` is its part of Sᵀk. With d = beta (v - Sᵀk), the output (S + k dᵀ)ᵀ q equals Sᵀq +
// d (k·q). So only the sum of Sᵀk must be complete before the next token, and there is no barrier if a workgroup is one
// subgroup. Loops over tiles are unrolled, so that no tile is indexed by a variable and all stay in registers.
struct Numbers {
    heads: u32,
    head_dim: u32,
    slot_len: u32,
    state_at: u32,
}

@group(0) @binding(0) var<uniform> n: Numbers;
@group(0) @binding(1) var<storage, read> batch: Batch;
@group(0) @binding(2) var<storage, read> qkv: array<vec4<f32>>; // [rows, 3, heads, head_dim / 4]
@group(0) @binding(3) var<storage, read> beta: array<f32>; // [rows, heads]
@group(0) @binding(4) var<storage, read_write> state: array<vec4<f32>>; // [slots, slot_len / 4], S at state_at: [heads, key, value / 4]
@group(0) @binding(5) var<storage, read_write> out: array<vec4<f32>>; // [rows, heads, head_dim / 4]

// What a thread needs from one token.
struct Token {
    q: array<vec4<f32>, QUADS>,
    k: array<vec4<f32>, QUADS>,
    v: vec4<f32>,
    beta: f32,
}

fn load(row: u32, head: u32, column: u32, local: u32) -> Token {
    let quads = n.head_dim / 4u;
    let q = (row * 3u * n.heads + head) * quads;
    let k = q + n.heads * quads;
    var token = Token();
    //#for I in QUADS
    if #Iu * WG + local < quads {
        token.q[#I] = qkv[q + #Iu * WG + local];
        token.k[#I] = qkv[k + #Iu * WG + local];
    }
    //#end
    token.v = qkv[k + n.heads * quads + column];
    token.beta = beta[row * n.heads + head];
    return token;
}

@compute @workgroup_size(WG)
fn delta_serial(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let quads = n.head_dim / 4u;
    let index = group_index(group, groups);
    let column = index % quads;
    let head = index / quads % n.heads;
    let number = index / quads / n.heads;
    if number >= batch.segments {
        return;
    }
    let segment = batch.segment[number];
    if segment.rows == 0u {
        return;
    }

    // Tile i of this thread begins at key row 4 (i WG + local).
    let start = (segment.slot * n.slot_len + n.state_at) / 4u + head * n.head_dim * quads + column;
    var s = array<mat4x4<f32>, QUADS>();
    if batch.row[segment.first].position != 0u {
        //#for I in QUADS
        if #Iu * WG + local < quads {
            let at = start + (#Iu * WG + local) * n.head_dim;
            s[#I] = mat4x4<f32>(state[at], state[at + quads], state[at + 2u * quads], state[at + 3u * quads]);
        }
        //#end
    }

    // Takes TOKENS tokens at a time. The next tokens are loaded meanwhile, and the outputs of these are summed
    // together.
    let scale = 1.0 / sqrt(f32(n.head_dim));
    let end = segment.first + segment.rows;
    //#for T in TOKENS
    var next_#T = load(min(segment.first + #Tu, end - 1u), head, column, local);
    //#end
    for (var row = segment.first; row < end; row += TOKENS) {
        //#for T in TOKENS
        let token_#T = next_#T;
        next_#T = load(min(row + TOKENS + #Tu, end - 1u), head, column, local);
        //#end
        var read = array<vec4<f32>, TOKENS>(); // part of Sᵀq; then of the output from the new state
        //#for T in TOKENS
        var known_#T = vec4<f32>(); // part of Sᵀk
        var both_#T = 0.0; // part of k·q
        //#for I in QUADS
        known_#T += s[#I] * token_#T.k[#I];
        read[#T] += s[#I] * token_#T.q[#I];
        both_#T += dot(token_#T.k[#I], token_#T.q[#I]);
        //#end
        // A token beyond the end changes nothing.
        let beta_#T = select(0.0, token_#T.beta, row + #Tu < end);
        let d_#T = beta_#T * (token_#T.v - sum4(known_#T, local));
        //#for I in QUADS
        s[#I] += outer(d_#T, token_#T.k[#I]);
        //#end
        read[#T] += d_#T * both_#T;
        //#end
        fold(read, local);
        for (var i = local; i < 4u * TOKENS; i += WG) {
            let t = row + i / 4u;
            if t < end {
                out[(t * n.heads + head) * quads + column][i % 4u] = folded(i) * scale;
            }
        }
    }

    //#for I in QUADS
    if #Iu * WG + local < quads {
        let at = start + (#Iu * WG + local) * n.head_dim;
        state[at] = s[#I][0];
        state[at + quads] = s[#I][1];
        state[at + 2u * quads] = s[#I][2];
        state[at + 3u * quads] = s[#I][3];
    }
    //#end
}
