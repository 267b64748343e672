//! The scores of the chunked Mamba2 scan (spec 3.4, chunked prefill).

use super::mamba2::{CHUNK, convolved, numbers, scan_examples, scores_len};
use crate::batch::{BATCH_WORDS, Batch, Size, max_tiles, tiles};
use crate::buf::Elem::{F32, U32};
use crate::caps::Caps;
use crate::kernel::{Const, Kernel, Source, read, write};
use crate::numbers;
use crate::op::{Example, Op, floats, floats_mut};
use nemoflash_shaders as wgsl;

numbers! {
    /// `scores[tile, r, t] = C[t] · B[r]` for the rows of every chunk of 64, for [`SsdChunk`](super::SsdChunk). All
    /// heads share B and C, so the scores are computed once for all heads. Rows `r` past the end of a chunk are not
    /// written. Scores of `t` past the end are 0. `d_inner` and `d_state` are multiples of 4.
    pub struct SsdScores {
        /// Columns of `xbc` before B.
        pub d_inner: u32,
        /// Columns of B and of C.
        pub d_state: u32,
    } host {
        /// Rows the buffers hold.
        pub rows: u32,
        /// Number of slots. It bounds the number of segments, and so the number of chunks of a step.
        pub slots: u32,
    }
}

/// Number of r that one workgroup computes: `SLICE` of `lib/ssd_block.wgsl`.
const SLICE: u32 = 16;

const KERNEL: Kernel = Kernel {
    name: "ssd_scores",
    parts: &[
        Source::Text(wgsl::GRID),
        Source::Text(wgsl::BATCH),
        Source::Text(wgsl::TILE),
        Source::Text(wgsl::SSD),
        Source::Text(wgsl::SSD_BLOCK),
        Source::Text(wgsl::SSD_SCORES),
    ],
    binds: &[read("batch", U32), read("xbc", F32), write("scores", F32)],
};

impl Op for SsdScores {
    fn kernel(&self) -> Kernel {
        KERNEL
    }

    fn consts(&self, _: &Caps) -> Vec<Const> {
        vec![("WG", 64), ("EXTRA", 0)]
    }

    fn lens(&self) -> Vec<u64> {
        let [rows, d_inner, d_state] = [self.rows, self.d_inner, self.d_state].map(u64::from);
        vec![BATCH_WORDS, rows * (d_inner + 2 * d_state), scores_len(self.rows, self.slots)]
    }

    fn grid(&self, size: Size, caps: &Caps) -> [u32; 3] {
        caps.grid(u64::from(max_tiles(size, CHUNK)) * u64::from(CHUNK / SLICE))
    }

    fn cpu(&self, _: Size, bufs: &mut [Vec<u32>]) {
        let [batch, xbc, scores] = bufs else { unreachable!() };
        let (xbc, scores) = (floats(xbc), floats_mut(scores));
        let [d_inner, d_state, chunk] = [self.d_inner, self.d_state, CHUNK].map(|n| n as usize);
        let of = |row: usize, from: usize| &xbc[row * (d_inner + 2 * d_state) + d_inner + from..][..d_state];
        for (tile, (_, first, rows)) in tiles(&Batch::from_words(batch), CHUNK).enumerate() {
            let (first, rows) = (first as usize, rows as usize);
            for r in 0..rows {
                for t in 0..chunk {
                    let dot = |(b, c): (&[f32], &[f32])| b.iter().zip(c).map(|(&b, &c)| f64::from(b) * f64::from(c)).sum();
                    let score: f64 = if t < rows { dot((of(first + r, 0), of(first + t, d_state))) } else { 0.0 };
                    scores[(tile * chunk + r) * chunk + t] = score as f32;
                }
            }
        }
    }

    fn examples() -> Vec<Example<Self>> {
        scan_examples(|heads, head_dim, d_state, segments| {
            let (rows, _, slots, ..) = numbers(heads, head_dim, d_state, segments);
            SsdScores { rows, d_inner: heads * head_dim, d_state, slots }
        })
    }

    fn input(&self, bind: usize, uniform: &mut dyn FnMut() -> f32) -> Option<Vec<u32>> {
        (bind == 1).then(|| convolved(self.lens()[1], uniform))
    }

    fn bytes(&self, size: Size) -> Option<u64> {
        Some(4 * u64::from(size.rows) * u64::from(2 * self.d_state + CHUNK))
    }
}
