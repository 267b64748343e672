//! Causal depthwise convolution over a segment, with silu (spec 3.4 and 3.5, step 2).

use crate::batch::{BATCH_WORDS, Batch, Size, max_tiles};
use crate::buf::Elem::{F32, U32};
use crate::caps::Caps;
use crate::kernel::{Const, Kernel, Source, read, write};
use crate::numbers;
use crate::op::{Example, Op, floats, floats_mut};
use nemoflash_shaders as wgsl;

numbers! {
    /// `y[t] = silu(bias + w[0] u[t-3] + w[1] u[t-2] + w[2] u[t-1] + w[3] u[t])` for every channel, where `u` is
    /// columns `in_offset..in_offset + channels` of `p`. Inputs before the segment come from the ring of its slot: the
    /// input of position `q` is entry `q % 4`. Inputs before position 0 are zero.
    pub struct Conv1d {
        /// Channels.
        pub channels: u32,
        /// Values in a row of `p`.
        pub in_stride: u32,
        /// Column of the first channel in `p`.
        pub in_offset: u32,
        /// Values in a slot; the first `4 * channels` are the ring, `[4, channels]`.
        pub slot_len: u32,
    } host {
        /// Rows the buffers hold.
        pub rows: u32,
        /// Slots of `state`.
        pub slots: u32,
    }
}

const WG: u32 = 64;
/// Rows of one thread. A thread slides over these rows, so it reads the weights once, and each input once.
const STRIP: u32 = 8;

const KERNEL: Kernel = Kernel {
    name: "conv1d",
    parts: &[
        Source::Text(wgsl::GRID),
        Source::Text(wgsl::BATCH),
        Source::Text(wgsl::TILE),
        Source::Text(wgsl::SILU),
        Source::Text(wgsl::CONV1D),
    ],
    binds: &[read("batch", U32), read("p", F32), read("w", F32), read("bias", F32), read("state", F32), write("y", F32)],
};

/// The raw input of `channel` at `back` positions before row `row`. The CPU twins of convolutions use it.
pub(super) fn input_before(
    batch: &Batch,
    row: usize,
    back: u32,
    mut from_rows: impl FnMut(usize) -> f32,
    mut from_ring: impl FnMut(u32) -> f32,
) -> f64 {
    let now = batch.rows[row];
    let first = batch.segments[now.segment as usize].first as usize;
    f64::from(match now.position.checked_sub(back) {
        None => 0.0,
        Some(_) if row - first >= back as usize => from_rows(row - back as usize),
        Some(position) => from_ring(position % 4),
    })
}

/// `x / (1 + exp(-x))`.
pub(super) fn silu(x: f64) -> f64 {
    x / (1.0 + (-x).exp())
}

impl Op for Conv1d {
    fn kernel(&self) -> Kernel {
        KERNEL
    }

    fn consts(&self, _: &Caps) -> Vec<Const> {
        vec![("WG", WG), ("STRIP", STRIP)]
    }

    fn lens(&self) -> Vec<u64> {
        let [rows, channels] = [self.rows, self.channels].map(u64::from);
        let state = u64::from(self.slots) * u64::from(self.slot_len);
        vec![BATCH_WORDS, rows * u64::from(self.in_stride), 4 * channels, channels, state, rows * channels]
    }

    fn grid(&self, size: Size, caps: &Caps) -> [u32; 3] {
        caps.grid(u64::from(max_tiles(size, STRIP)) * u64::from(self.channels.div_ceil(WG)))
    }

    fn cpu(&self, size: Size, bufs: &mut [Vec<u32>]) {
        let [batch, p, w, bias, state, y] = bufs else { unreachable!() };
        let batch = Batch::from_words(batch);
        let (p, w, bias, state, y) = (floats(p), floats(w), floats(bias), floats(state), floats_mut(y));
        let [channels, stride, offset, slot_len] =
            [self.channels, self.in_stride, self.in_offset, self.slot_len].map(|n| n as usize);
        for row in 0..size.rows as usize {
            let slot = batch.rows[row].slot as usize;
            for c in 0..channels {
                let mut sum = f64::from(bias[c]);
                for back in 0..4 {
                    let from_rows = |row: usize| p[row * stride + offset + c];
                    let from_ring = |entry: u32| state[slot * slot_len + entry as usize * channels + c];
                    let input = input_before(&batch, row, back, from_rows, from_ring);
                    sum += f64::from(w[4 * c + 3 - back as usize]) * input;
                }
                y[row * channels + c] = silu(sum) as f32;
            }
        }
    }

    fn bytes(&self, size: Size) -> Option<u64> {
        // Inputs and outputs, weights and bias, and three older inputs of every segment, each once.
        Some(4 * u64::from(self.channels) * (2 * u64::from(size.rows) + 5 + 3 * u64::from(size.segments)))
    }

    fn examples() -> Vec<Example<Self>> {
        let case = |channels, in_offset, segments: &[(u32, u32, u32)]| {
            let rows = segments.iter().map(|s| s.2).sum();
            let slots = segments.iter().map(|s| s.0).max().unwrap_or(0) + 1;
            let in_stride = in_offset + channels + 3;
            let op = Conv1d { rows, channels, in_stride, in_offset, slots, slot_len: 4 * channels + 5 };
            Example::segments(op, segments)
        };
        vec![
            case(1, 0, &[(0, 0, 1)]),
            case(63, 2, &[(0, 1, 1)]),
            case(65, 5, &[(1, 2, 2), (0, 0, 3)]),
            case(130, 7, &[(0, 3, 1), (2, 0, 63), (1, 257, 65)]),
            case(384, 0, &[(0, 0, 127)]),
            case(96, 64, &[(3, 6, 7), (0, 4, 8), (1, 5, 9), (2, 0, 1), (4, 1, 16)]),
            case(7, 1, &(0..17).map(|i| (16 - i, i, i + 1)).collect::<Vec<_>>()),
            // 65 strips of 1009 workgroups are more than the 65,535 of one grid dimension.
            case(64_573, 0, &(0..65).map(|i| (i, i, 1)).collect::<Vec<_>>()),
        ]
    }
}
