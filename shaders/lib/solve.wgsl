// The forward substitution of the WY form (spec 3.5), for `delta_wy` and `delta_local`. Needs const CHUNK and A_AT, an array
// `a` in workgroup memory, and `get_t` and `set_t`, which read and write four rows of a column of T.
const QUADS: u32 = CHUNK / 4u; // four rows or columns of the tile

// `values` in columns 4 * quad + i below `end`, else 0.
fn below(values: vec4<f32>, quad: u32, end: u32) -> vec4<f32> {
    return select(vec4<f32>(), values, vec4<u32>(4u * quad) + vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(end));
}

// Computes column c of T by forward substitution, four rows at a time: T[r] = beta e_c[r] - sum A[r] T. A [row][column / 4]
// begins at A_AT of `a`. `own` is beta of row c, and `used` the number of quads of rows that exist.
fn solve(c: u32, own: f32, used: u32) {
    for (var r = 0u; r < used; r++) {
        let at = A_AT + 4u * r * QUADS;
        var x = select(vec4<f32>(), vec4<f32>(own), vec4<u32>(4u * r) + vec4<u32>(0u, 1u, 2u, 3u) == vec4<u32>(c));
        for (var y = 0u; y < r; y++) {
            let done = get_t(c, y);
            x -= vec4<f32>(
                dot(a[at + y], done),
                dot(a[at + QUADS + y], done),
                dot(a[at + 2u * QUADS + y], done),
                dot(a[at + 3u * QUADS + y], done),
            );
        }
        let row1 = a[at + QUADS + r];
        let row2 = a[at + 2u * QUADS + r];
        let row3 = a[at + 3u * QUADS + r];
        x.y -= row1.x * x.x;
        x.z -= row2.x * x.x + row2.y * x.y;
        x.w -= row3.x * x.x + row3.y * x.y + row3.z * x.z;
        set_t(c, r, x);
    }
}
