// Copies the last row of every segment, in the order of the segments: the rows that need logits (spec 3.1 step 5). One
// workgroup per segment.
struct Numbers {
    rows: u32,
    segments: u32,
    width: u32,
}

@group(0) @binding(0) var<uniform> n: Numbers;
@group(0) @binding(1) var<storage, read> batch: Batch;
@group(0) @binding(2) var<storage, read> x: array<f32>; // [rows, width]
@group(0) @binding(3) var<storage, read_write> y: array<f32>; // [segments, width]

@compute @workgroup_size(WG)
fn gather_last(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let segment = batch.segment[group.x];
    let row = segment.first + segment.rows - 1u;
    if group.x < n.segments && row < n.rows {
        for (var i = local; i < n.width; i += WG) {
            y[group.x * n.width + i] = x[row * n.width + i];
        }
    }
}
