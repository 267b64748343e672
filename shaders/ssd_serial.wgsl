// Mamba2 scan, one token after the other (spec 3.4 steps 4 and 5). One workgroup per (segment, head, four rows of the
// head). With subgroups, a workgroup is one subgroup. A lane holds its part of these rows of the state in registers.
struct Numbers {
    heads: u32,
    head_dim: u32,
    d_state: u32,
    in_stride: u32,
    slot_len: u32,
    state_at: u32,
}

@group(0) @binding(0) var<uniform> n: Numbers;
@group(0) @binding(1) var<storage, read> batch: Batch;
@group(0) @binding(2) var<storage, read> xbc: array<vec4<f32>>; // [rows, x: d_inner | B: d_state | C: d_state] / 4
@group(0) @binding(3) var<storage, read> p: array<f32>; // [rows, in_stride], ends with dt: [heads]
@group(0) @binding(4) var<storage, read> params: array<f32>; // [3, heads]: A, D, dt_bias
@group(0) @binding(5) var<storage, read_write> state: array<vec4<f32>>; // [slots, slot_len] / 4, at state_at [heads, head_dim, d_state]
@group(0) @binding(6) var<storage, read_write> y: array<vec4<f32>>; // [rows, d_inner] / 4

// Block b of a lane has the columns 4 (b WG + lane).. of d_state. Loops over blocks are unrolled, so that no block is
// indexed by a variable and all stay in registers.
var<private> s: array<mat4x4<f32>, BLOCKS>;

// What a lane needs from one token.
struct Token {
    dt: f32, // as projected, before softplus
    x: vec4<f32>,
    b: array<vec4<f32>, BLOCKS>,
    c: array<vec4<f32>, BLOCKS>,
}

fn load(row: u32, head: u32, quad: u32, lane: u32) -> Token {
    let places = n.d_state / 4u;
    let d_inner = n.heads * n.head_dim / 4u;
    let at = row * (d_inner + 2u * places);
    var token = Token();
    token.dt = p[row * n.in_stride + n.in_stride - n.heads + head];
    token.x = xbc[at + head * (n.head_dim / 4u) + quad];
    //#for B in BLOCKS
    let place_#B = min(#Bu * WG + lane, places - 1u);
    token.b[#B] = xbc[at + d_inner + place_#B];
    token.c[#B] = xbc[at + d_inner + places + place_#B];
    //#end
    return token;
}

// Advances the state by one token, and returns the lane's part of S C. A token that is not `live` changes nothing.
fn move_on(token: Token, live: bool, head: u32, lane: u32) -> vec4<f32> {
    let dt = select(0.0, softplus(token.dt + params[2u * n.heads + head]), live);
    let decay = exp(dt * params[head]);
    let dx = dt * token.x;
    var part = vec4<f32>(0.0);
    //#for B in BLOCKS
    if #Bu * WG + lane < n.d_state / 4u {
        s[#B] = s[#B] * decay + outer(token.b[#B], dx);
        part += token.c[#B] * s[#B];
    }
    //#end
    return part;
}

@compute @workgroup_size(WG)
fn ssd_serial(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let quads = n.head_dim / 4u;
    let index = group_index(group, groups);
    let quad = index % quads;
    let head = index / quads % n.heads;
    if index / quads / n.heads >= batch.segments {
        return;
    }
    let segment = batch.segment[index / quads / n.heads];
    let places = n.d_state / 4u;
    let at = (segment.slot * n.slot_len + n.state_at) / 4u + (head * n.head_dim + 4u * quad) * places;
    let fresh = batch.row[segment.first].position == 0u;
    //#for B in BLOCKS
    let i_#B = at + #Bu * WG + local;
    if #Bu * WG + local < places && !fresh {
        s[#B] = mat4x4<f32>(state[i_#B], state[i_#B + places], state[i_#B + 2u * places], state[i_#B + 3u * places]);
    }
    //#end

    // Takes TOKENS tokens at a time. Their sums do not wait for each other, and the next tokens are loaded meanwhile.
    let skip = params[n.heads + head];
    let end = segment.first + segment.rows;
    //#for T in TOKENS
    var next_#T = load(min(segment.first + #Tu, end - 1u), head, quad, local);
    //#end
    for (var row = segment.first; row < end; row += TOKENS) {
        //#for T in TOKENS
        let token_#T = next_#T;
        next_#T = load(min(row + TOKENS + #Tu, end - 1u), head, quad, local);
        //#end
        var parts = array<vec4<f32>, TOKENS>();
        //#for T in TOKENS
        parts[#T] = move_on(token_#T, row + #Tu < end, head, local);
        //#end
        fold(parts, local);
        for (var i = local; i < 4u * TOKENS; i += WG) {
            let t = row + i / 4u;
            if t < end {
                let x = xbc[t * (n.heads * quads + 2u * places) + head * quads + quad][i % 4u];
                y[(t * n.heads + head) * quads + quad][i % 4u] = folded(i) + skip * x;
            }
        }
    }

    //#for B in BLOCKS
    if #Bu * WG + local < places {
        state[i_#B] = s[#B][0];
        state[i_#B + places] = s[#B][1];
        state[i_#B + 2u * places] = s[#B][2];
        state[i_#B + 3u * places] = s[#B][3];
    }
    //#end
}
