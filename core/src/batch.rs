//! Rows and segments: the unit of work of one engine step.
//!
//! A row is (token, slot, position). The rows of one slot are contiguous and in order, and form a segment. The whole
//! batch is in one small storage buffer, which every kernel that needs to know sequences reads.
//! `shaders/lib/batch.wgsl` declares the same layout.

use bytemuck::{Pod, Zeroable};

/// The most rows of a step.
pub const MAX_ROWS: usize = 2048;
/// The most segments of a step, and so the most slots of an engine.
pub const MAX_SEGMENTS: usize = 512;
/// Value of [`Row::token`] for the token that was picked last for this slot. Only the device knows that token.
pub const PICKED: u32 = u32::MAX;
/// Word of the device buffer where the rows begin.
pub const ROWS_AT: usize = 4 + 4 * MAX_SEGMENTS;
/// Words of the device buffer: header, segments, rows.
pub const BATCH_WORDS: u64 = ROWS_AT as u64 + 4 * MAX_ROWS as u64;

/// One position of one sequence.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Row {
    /// Token id. Ids from `vocab_size` on are meta tokens. [`PICKED`] stands for the token that was picked last in this
    /// slot.
    pub token: u32,
    /// The slot whose memory this row reads and writes.
    pub slot: u32,
    /// Position in the sequence, meta tokens included.
    pub position: u32,
    /// Index of the row's segment.
    pub segment: u32,
}

/// Consecutive rows of one slot.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Segment {
    /// The slot.
    pub slot: u32,
    /// Index of its first row.
    pub first: u32,
    /// Number of its rows.
    pub rows: u32,
    /// 1 if a token is to be picked after the last row, else 0.
    pub pick: u32,
}

/// How many rows and segments a step has. Grids depend on this and on nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Rows in the step.
    pub rows: u32,
    /// Segments in the step.
    pub segments: u32,
}

/// The rows of one step, in the order of their segments.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// The segments.
    pub segments: Vec<Segment>,
    /// All rows, segment after segment.
    pub rows: Vec<Row>,
}

impl Batch {
    /// Adds a segment: `tokens` of the sequence in `slot`, from `position` on. With `pick`, a token is chosen after
    /// the last row.
    pub fn push(&mut self, slot: u32, position: u32, tokens: &[u32], pick: bool) {
        let segment = self.segments.len() as u32;
        let first = self.rows.len() as u32;
        self.segments.push(Segment { slot, first, rows: tokens.len() as u32, pick: pick.into() });
        self.rows.extend(tokens.iter().zip(position..).map(|(&token, position)| Row {
            token,
            slot,
            position,
            segment,
        }));
    }

    /// Number of rows and of segments.
    pub fn size(&self) -> Size {
        Size { rows: self.rows.len() as u32, segments: self.segments.len() as u32 }
    }

    /// The layout on the device: [`BATCH_WORDS`] words.
    pub fn words(&self) -> Vec<u32> {
        let mut words = vec![0u32; BATCH_WORDS as usize];
        words[0] = self.rows.len() as u32;
        words[1] = self.segments.len() as u32;
        let segments: &[u32] = bytemuck::cast_slice(&self.segments);
        words[4..4 + segments.len()].copy_from_slice(segments);
        let rows: &[u32] = bytemuck::cast_slice(&self.rows);
        words[ROWS_AT..ROWS_AT + rows.len()].copy_from_slice(rows);
        words
    }

    /// Reads the layout of [`Batch::words`].
    pub fn from_words(words: &[u32]) -> Batch {
        let (rows, segments) = (words[0] as usize, words[1] as usize);
        Batch {
            segments: bytemuck::cast_slice(&words[4..4 + 4 * segments]).to_vec(),
            rows: bytemuck::cast_slice(&words[ROWS_AT..ROWS_AT + 4 * rows]).to_vec(),
        }
    }
}

/// The tiles of `tile` rows that cover every segment: (segment, first row, rows), as in `tile_of` of
/// `shaders/lib/batch.wgsl`.
pub fn tiles(batch: &Batch, tile: u32) -> impl Iterator<Item = (Segment, u32, u32)> {
    batch.segments.iter().flat_map(move |s| {
        (0..s.rows.div_ceil(tile)).map(move |i| (*s, s.first + i * tile, tile.min(s.rows - i * tile)))
    })
}

/// An upper bound of the number of [`tiles`]. It depends on the size of the step alone, so grids can use it.
pub fn max_tiles(size: Size, tile: u32) -> u32 {
    (size.rows / tile + size.segments).min(size.rows)
}
