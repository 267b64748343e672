//! What the chunked Mamba2 scan with cooperative matrices needs of each chunk (spec 3.4, chunked prefill).

use super::mamba2::{CHUNK, convolved, numbers, scan_examples, scores_len};
use super::{Half, SsdScores, half};
use crate::batch::{BATCH_WORDS, Batch, Size, max_tiles, tiles};
use crate::buf::Elem::{F16, F32, U32};
use crate::caps::Caps;
use crate::kernel::{COOP, Const, Kernel, Source, read, write};
use crate::numbers;
use crate::op::{Example, Op, floats};
use nemoflash_shaders as wgsl;

numbers! {
    /// The `scores` of [`SsdScores`], and B and C of each row as f16, divided by 16, for [`SsdCarry`](super::SsdCarry):
    /// `bc` [rows, B | C, width], where the width is d_state rounded up to 64. Columns past d_state are 0.
    /// `d_inner` and `d_state` are multiples of 4.
    pub struct SsdLocal {
        /// Columns of `xbc` before B.
        pub d_inner: u32,
        /// Columns of B and of C, at most [`SsdCarry::MAX_STATE`](super::SsdCarry::MAX_STATE).
        pub d_state: u32,
    } host {
        /// Rows the buffers hold.
        pub rows: u32,
        /// Number of slots. It bounds the number of segments, and so the number of chunks of a step.
        pub slots: u32,
    }
}

/// Columns of B and of C in `bc`.
pub(super) fn width(d_state: u32) -> u32 {
    d_state.next_multiple_of(64)
}

/// Elements of `bc`.
pub(super) fn bc_len(rows: u32, d_state: u32) -> u64 {
    u64::from(rows) * 2 * u64::from(width(d_state))
}

const KERNEL: Kernel = Kernel {
    name: "ssd_local",
    parts: &[
        Source::Text(wgsl::GRID),
        Source::Text(wgsl::BATCH),
        Source::Text(wgsl::TILE),
        Source::Text(wgsl::SSD_LOCAL),
    ],
    binds: &[read("batch", U32), read("xbc", F32), write("scores", F32), write("bc", F16)],
};

impl SsdLocal {
    fn scores(&self) -> SsdScores {
        let SsdLocal { d_inner, d_state, rows, slots } = *self;
        SsdScores { d_inner, d_state, rows, slots }
    }
}

impl Op for SsdLocal {
    fn kernel(&self) -> Kernel {
        KERNEL
    }

    fn consts(&self, _: &Caps) -> Vec<Const> {
        let width = width(self.d_state);
        vec![("WG", 128), ("WIDTH", width), ("SLICES", width / 16), ("LOADS", CHUNK * width / 4 / 128), COOP]
    }

    fn coop_only(&self) -> bool {
        true
    }

    fn lens(&self) -> Vec<u64> {
        let row = u64::from(self.d_inner + 2 * self.d_state);
        let scores = scores_len(self.rows, self.slots);
        vec![BATCH_WORDS, u64::from(self.rows) * row, scores, bc_len(self.rows, self.d_state)]
    }

    fn grid(&self, size: Size, caps: &Caps) -> [u32; 3] {
        caps.grid(max_tiles(size, CHUNK).into())
    }

    fn cpu(&self, size: Size, bufs: &mut [Vec<u32>]) {
        let (others, bc) = bufs.split_at_mut(3);
        self.scores().cpu(size, others);
        let (batch, xbc) = (Batch::from_words(&others[0]), floats(&others[1]));
        let [d_inner, d_state, width] = [self.d_inner, self.d_state, width(self.d_state)].map(|n| n as usize);
        let bc: &mut [Half] = bytemuck::cast_slice_mut(&mut bc[0]);
        for (_, first, rows) in tiles(&batch, CHUNK) {
            for row in first as usize..(first + rows) as usize {
                let of = |i: usize| match i % width {
                    column if column < d_state => {
                        xbc[row * (d_inner + 2 * d_state) + d_inner + i / width * d_state + column]
                    }
                    _ => 0.0,
                };
                (0..2 * width).for_each(|i| bc[row * 2 * width + i] = half(of(i) / 16.0));
            }
        }
    }

    fn examples() -> Vec<Example<Self>> {
        scan_examples(|heads, head_dim, d_state, segments| {
            let (rows, _, slots, ..) = numbers(heads, head_dim, d_state, segments);
            SsdLocal { rows, d_inner: heads * head_dim, d_state, slots }
        })
    }

    fn input(&self, bind: usize, uniform: &mut dyn FnMut() -> f32) -> Option<Vec<u32>> {
        (bind == 1).then(|| convolved(self.lens()[1], uniform))
    }

    fn bytes(&self, size: Size) -> Option<u64> {
        let bc = u64::from(size.rows) * 4 * u64::from(width(self.d_state));
        self.scores().bytes(size).map(|bytes| bytes + bc)
    }
}
