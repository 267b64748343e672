// Rows and segments of one step, in the layout of core/src/batch.rs.
const MAX_ROWS: u32 = 2048u;
const MAX_SEGMENTS: u32 = 512u;
const PICKED: u32 = 0xffffffffu;

struct Row {
    token: u32,
    slot: u32,
    position: u32,
    segment: u32,
}

struct Segment {
    slot: u32,
    first: u32,
    rows: u32,
    pick: u32,
}

struct Batch {
    rows: u32,
    segments: u32,
    unused0: u32,
    unused1: u32,
    segment: array<Segment, MAX_SEGMENTS>,
    row: array<Row, MAX_ROWS>,
}

// A tile: at most `size` consecutive rows of one segment. `rows` is 0 beyond the last tile.
struct Tile {
    segment: u32,
    slot: u32,
    first: u32,
    rows: u32,
}
