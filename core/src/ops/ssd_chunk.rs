//! Mamba2 scan, chunk by chunk (spec 3.4, chunked prefill).

use super::mamba2::{CHUNK, Dims, chunked, convolved, numbers, params, scan_examples, scores_len};
use crate::batch::{BATCH_WORDS, Batch, Size};
use crate::buf::Elem::{F32, U32};
use crate::caps::Caps;
use crate::kernel::{Const, Kernel, Source, read, update, write};
use crate::numbers;
use crate::op::{Example, Op, floats, floats_mut};
use nemoflash_shaders as wgsl;

numbers! {
    /// Computes the same as [`SsdSerial`](super::SsdSerial) with products of matrices and the `scores` of
    /// [`SsdScores`](super::SsdScores). Let `s[t]` be the sum of `Δ A` over the rows of a chunk up to `t`:
    ///
    /// - `y[t] = exp(s[t]) S C[t] + sum over r <= t of scores[r, t] exp(s[t] - s[r]) Δ[r] x[r] + D x[t]`,
    /// - `S = exp(s[last]) S + sum over r of exp(s[last] - s[r]) Δ[r] x[r] ⊗ B[r]`.
    ///
    /// **Chunks have 64 rows.** The results do not depend on that length. 64 is the longest chunk whose slices of C, B
    /// and the scores fit into 16 KiB of workgroup memory, beside 16 rows of a state with a d_state of 128 (4 KiB + 1
    /// KiB + 8 KiB). The work inside a chunk grows with its length, per row.
    ///
    /// **Work is split** by segment, head and 16 rows of the head, not by chunk. At the published sizes one segment has
    /// 256 (1B) or 384 (3B) workgroups, which is enough to fill a large GPU, and no chunk's state goes through memory.
    /// Such states would take 2 MiB (1B) or 3 MiB (3B) per chunk: 18 or 27 MiB for 512 rows of one slot. The scores
    /// take 16 KiB per chunk.
    ///
    /// `head_dim` and `d_state` are multiples of 4, and `d_state` is at most [`SsdChunk::MAX_STATE`].
    pub struct SsdChunk {
        /// Heads; `d_inner = heads * head_dim`.
        pub heads: u32,
        /// Values of a head.
        pub head_dim: u32,
        /// Values in the state for each value of a head.
        pub d_state: u32,
        /// Values in a row of `p`: `2 * d_inner + 2 * d_state + heads`.
        pub in_stride: u32,
        /// Values in a slot, a multiple of 4.
        pub slot_len: u32,
        /// Where the state `[heads, head_dim, d_state]` begins in a slot, a multiple of 4.
        pub state_at: u32,
    } host {
        /// Rows the buffers hold.
        pub rows: u32,
        /// Slots of `state`.
        pub slots: u32,
    }
}

const KERNEL: Kernel = Kernel {
    name: "ssd_chunk",
    parts: &[
        Source::Text(wgsl::GRID),
        Source::Text(wgsl::BATCH),
        Source::Text(wgsl::SSD),
        Source::Text(wgsl::SSD_BLOCK),
        Source::Text(wgsl::SSD_CHUNK),
    ],
    binds: &[
        read("batch", U32),
        read("xbc", F32),
        read("p", F32),
        read("params", F32),
        read("scores", F32),
        update("state", F32),
        write("y", F32),
    ],
};

impl SsdChunk {
    /// The largest `d_state` whose rows fit into the workgroup memory that every device has.
    pub const MAX_STATE: u32 = 128;

    pub(super) fn dims(&self) -> Dims {
        let [heads, head_dim, d_state, in_stride, slot_len, state_at] =
            [self.heads, self.head_dim, self.d_state, self.in_stride, self.slot_len, self.state_at].map(|n| n as usize);
        Dims { heads, head_dim, d_state, in_stride, slot_len, state_at }
    }
}

impl Op for SsdChunk {
    fn kernel(&self) -> Kernel {
        KERNEL
    }

    fn consts(&self, _: &Caps) -> Vec<Const> {
        vec![("WG", 64), ("EXTRA", self.d_state.next_multiple_of(64))]
    }

    fn lens(&self) -> Vec<u64> {
        let dims = self.dims();
        let (rows, heads) = (u64::from(self.rows), u64::from(self.heads));
        let state = u64::from(self.slots) * u64::from(self.slot_len);
        let (xbc, y) = (rows * dims.channels() as u64, rows * dims.d_inner() as u64);
        let scores = scores_len(self.rows, self.slots);
        vec![BATCH_WORDS, xbc, rows * u64::from(self.in_stride), 3 * heads, scores, state, y]
    }

    fn grid(&self, size: Size, caps: &Caps) -> [u32; 3] {
        caps.grid(u64::from(size.segments) * u64::from(self.heads) * u64::from(self.head_dim.div_ceil(16)))
    }

    fn cpu(&self, _: Size, bufs: &mut [Vec<u32>]) {
        let [batch, xbc, p, params, scores, state, y] = bufs else { unreachable!() };
        let (xbc, dims) = (floats(xbc), self.dims());
        let of = |row: usize, at: usize| f64::from(xbc[row * dims.channels() + at]);
        let (p, params, scores) = (floats(p), floats(params), floats(scores));
        chunked(&dims, &Batch::from_words(batch), &of, [p, params, scores], floats_mut(state), floats_mut(y));
    }

    fn examples() -> Vec<Example<Self>> {
        // There is no example with more workgroups than one grid dimension holds: it would take half a minute on a GPU
        // in software. The grid is folded as in SsdSerial, which has such an example.
        scan_examples(|heads, head_dim, d_state, segments| {
            let (rows, in_stride, slots, slot_len, state_at) = numbers(heads, head_dim, d_state, segments);
            SsdChunk { rows, heads, head_dim, d_state, in_stride, slots, slot_len, state_at }
        })
    }

    fn input(&self, bind: usize, uniform: &mut dyn FnMut() -> f32) -> Option<Vec<u32>> {
        match bind {
            1 => Some(convolved(self.lens()[1], uniform)),
            3 => Some(params(self.heads, uniform)),
            _ => None,
        }
    }

    fn bytes(&self, size: Size) -> Option<u64> {
        let dims = self.dims();
        let row = dims.channels() + dims.heads + CHUNK as usize + dims.d_inner();
        let states = 2 * u64::from(size.segments) * dims.state_len() as u64;
        Some(4 * (u64::from(size.rows) * row as u64 + states))
    }
}
