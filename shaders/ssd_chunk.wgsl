// Mamba2 scan, chunk by chunk (spec 3.4, chunked prefill). There is one workgroup per (segment, head, 16 rows of the
// head). It keeps these rows of the state in workgroup memory, and takes the chunks of the segment one after the other.
// Inside a chunk, everything is a product of matrices.
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
@group(0) @binding(5) var<storage, read> scores: array<vec4<f32>>; // [tiles, r: CHUNK, t: CHUNK] / 4
@group(0) @binding(6) var<storage, read_write> state: array<vec4<f32>>; // [slots, slot_len] / 4, at state_at [heads, head_dim, d_state]
@group(0) @binding(7) var<storage, read_write> y: array<vec4<f32>>; // [rows, d_inner] / 4

var<workgroup> steps: array<f32, CHUNK>; // dt of each row; 0 beyond the last row, which then changes nothing
var<workgroup> falls: array<f32, CHUNK>; // -dt A of each row
// -s, where s is the sum of dt A up to each row, as whole + part. `whole` is exact and `part` is below 1. So the
// difference of two such sums is right to 1e-6, however large they are.
var<workgroup> whole: array<f32, CHUNK>;
var<workgroup> part: array<f32, CHUNK>;

// The four rows of `right` that hold block `place` of the state, which is [d_state, 16] from row SLICE on.
fn state_row(place: u32, i: u32, local: u32) -> u32 {
    return (SLICE + 4u * place + i) * 4u + local / 16u;
}

fn get_state(place: u32, local: u32) -> mat4x4<f32> {
    return transpose(mat4x4<f32>(
        right[state_row(place, 0u, local)],
        right[state_row(place, 1u, local)],
        right[state_row(place, 2u, local)],
        right[state_row(place, 3u, local)],
    ));
}

fn set_state(place: u32, local: u32, value: mat4x4<f32>) {
    let rows = transpose(value);
    right[state_row(place, 0u, local)] = rows[0];
    right[state_row(place, 1u, local)] = rows[1];
    right[state_row(place, 2u, local)] = rows[2];
    right[state_row(place, 3u, local)] = rows[3];
}

@compute @workgroup_size(WG)
fn ssd_chunk(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let quads = n.head_dim / 4u;
    let across = (quads + 3u) / 4u;
    let index = group_index(group, groups);
    let head = index / across % n.heads;
    if index / across / n.heads >= batch.segments {
        return;
    }
    let segment = batch.segment[index / across / n.heads];
    let end = segment.first + segment.rows;
    let places = n.d_state / 4u;
    let d_inner = n.heads * quads;
    let stride = d_inner + 2u * places;
    // This thread's block of a result: rows 4 `quad`.. of the chunk or of d_state, and four rows of the head.
    let quad = local % 16u;
    let column = index % across * 4u + local / 16u;
    let inside = column < quads;
    let x_at = head * quads + min(column, quads - 1u);
    // What this thread loads for a slice: terms `term`, `term` + 4, ... of `left`, and one vector of `right`.
    let term = local / 16u;
    let right_term = local / 4u;
    let right_column = index % across * 4u + local % 4u;

    var tile = 0u;
    for (var i = 0u; i < index / across / n.heads; i++) {
        tile += (batch.segment[i].rows + CHUNK - 1u) / CHUNK;
    }

    let at = (segment.slot * n.slot_len + n.state_at) / 4u + (head * n.head_dim + 4u * column) * places;
    let fresh = batch.row[segment.first].position == 0u;
    for (var place = quad; place < EXTRA / 4u; place += 16u) {
        let i = at + place;
        var s = mat4x4<f32>();
        if inside && place < places && !fresh {
            s = mat4x4<f32>(state[i], state[i + places], state[i + 2u * places], state[i + 3u * places]);
        }
        set_state(place, local, s);
    }

    for (var first = segment.first; first < end; first += CHUNK) {
        let rows = min(CHUNK, end - first);
        steps[local] = 0.0;
        falls[local] = 0.0;
        if local < rows {
            let raw = p[(first + local) * n.in_stride + n.in_stride - n.heads + head];
            steps[local] = softplus(raw + params[2u * n.heads + head]);
            // exp(-1e5) is 0, as is exp of anything below that.
            falls[local] = min(-steps[local] * params[head], 1e5);
        }
        workgroupBarrier();
        var sum = vec2<f32>(0.0);
        for (var r = 0u; r < rows; r++) {
            if r <= local {
                let more = floor(falls[r]);
                sum += vec2<f32>(more, falls[r] - more);
                let carry = floor(sum.y);
                sum += vec2<f32>(carry, -carry);
            }
        }
        whole[local] = sum.x;
        part[local] = sum.y;
        workgroupBarrier();
        let t = 4u * quad;
        let wholes = vec4<f32>(whole[t], whole[t + 1u], whole[t + 2u], whole[t + 3u]);
        let parts = vec4<f32>(part[t], part[t + 1u], part[t + 2u], part[t + 3u]);

        // From the state before the chunk: Y = exp(s[t]) C[t] S.
        var result = mat4x4<f32>();
        for (var place = 0u; place < places; place += SLICE / 4u) {
            workgroupBarrier();
            var c = mat4x4<f32>();
            for (var i = 0u; i < 4u; i++) {
                if t + i < rows && place + term < places {
                    c[i] = xbc[(first + t + i) * stride + d_inner + places + place + term];
                }
            }
            c = transpose(c);
            for (var i = 0u; i < 4u; i++) {
                left[(4u * term + i) * 16u + quad] = c[i];
            }
            workgroupBarrier();
            result = product(result, SLICE + 4u * place, local);
        }
        let fade = exp(-(wholes + parts));
        result = mat4x4<f32>(result[0] * fade, result[1] * fade, result[2] * fade, result[3] * fade);

        // From the rows of the chunk: Y[t] += sum over r <= t of (C[t] . B[r]) exp(s[t] - s[r]) dt[r] x[r].
        for (var slice = 0u; slice < rows; slice += SLICE) {
            workgroupBarrier();
            for (var k = term; k < SLICE; k += 4u) {
                let r = slice + k;
                let fall = (wholes - vec4<f32>(whole[r])) + (parts - vec4<f32>(part[r]));
                let seen = vec4<u32>(r) <= vec4<u32>(t, t + 1u, t + 2u, t + 3u);
                let score = scores[(tile * CHUNK + r) * 16u + quad];
                left[k * 16u + quad] = select(vec4<f32>(0.0), score * exp(-max(fall, vec4<f32>(0.0))), seen & vec4<bool>(r < rows));
            }
            let r = slice + right_term;
            var x = vec4<f32>(0.0);
            if r < rows && right_column < quads {
                x = steps[r] * xbc[(first + r) * stride + head * quads + right_column];
            }
            right[local] = x;
            workgroupBarrier();
            result = product(result, 0u, local);
        }
        result = transpose(result);
        for (var i = 0u; i < 4u; i++) {
            if inside && t + i < rows {
                let x = xbc[(first + t + i) * stride + x_at];
                y[(first + t + i) * d_inner + x_at] = result[i] + params[n.heads + head] * x;
            }
        }

        // The state after the chunk: S = exp(s[last]) S + sum of exp(s[last] - s[r]) dt[r] x[r] (x) B[r].
        let all = vec2<f32>(whole[CHUNK - 1u], part[CHUNK - 1u]);
        for (var block = 0u; block < places; block += 16u) {
            let place = block + quad;
            var s = get_state(place, local) * exp(-(all.x + all.y));
            for (var slice = 0u; slice < rows; slice += SLICE) {
                workgroupBarrier();
                for (var k = term; k < SLICE; k += 4u) {
                    let r = slice + k;
                    var b = vec4<f32>(0.0);
                    if r < rows && place < places {
                        b = xbc[(first + r) * stride + d_inner + place];
                    }
                    left[k * 16u + quad] = b;
                }
                let r = slice + right_term;
                var x = vec4<f32>(0.0);
                if r < rows && right_column < quads {
                    let fall = (all.x - whole[r]) + (all.y - part[r]);
                    x = (exp(-max(fall, 0.0)) * steps[r]) * xbc[(first + r) * stride + head * quads + right_column];
                }
                right[local] = x;
                workgroupBarrier();
                s = product(s, 0u, local);
            }
            set_state(place, local, s);
        }
        tile++;
    }

    for (var place = quad; place < places; place += 16u) {
        let i = at + place;
        if inside {
            let s = get_state(place, local);
            state[i] = s[0];
            state[i + places] = s[1];
            state[i + 2u * places] = s[2];
            state[i + 3u * places] = s[3];
        }
    }
}
