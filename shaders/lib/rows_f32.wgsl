// Rows that a kernel writes as f32, [rows, width / 4]. lib/rows_f16.wgsl has the same names.
alias Row4 = vec4<f32>;

fn packed(v: vec4<f32>) -> Row4 {
    return v;
}
