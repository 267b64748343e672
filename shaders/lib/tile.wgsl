// The tile with this index, when every segment of `batch` is cut into tiles of `size` rows.
fn tile_of(index: u32, size: u32) -> Tile {
    var left = index;
    for (var s = 0u; s < batch.segments; s++) {
        let segment = batch.segment[s];
        let tiles = (segment.rows + size - 1u) / size;
        if left < tiles {
            let first = left * size;
            return Tile(s, segment.slot, segment.first + first, min(size, segment.rows - first));
        }
        left -= tiles;
    }
    return Tile(0u, 0u, 0u, 0u);
}
