//! Saves the last inputs of a convolution as its state (spec 4).

use super::Conv1d;
use crate::batch::{BATCH_WORDS, Batch, Size};
use crate::buf::Elem::{F32, U32};
use crate::caps::Caps;
use crate::kernel::{Const, Kernel, Source, read, update};
use crate::numbers;
use crate::op::{Example, Op, floats, floats_mut};
use nemoflash_shaders as wgsl;

numbers! {
    /// Saves the last four raw inputs of every segment in the ring of its slot, or all of them if there are fewer: the
    /// input of position `q` is entry `q % 4`. [`Conv1d`] needs only three of them. With the fourth, the ring does not
    /// depend on how a sequence was cut into steps. Runs after [`Conv1d`], which reads the old ring.
    pub struct ConvTail {
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

const KERNEL: Kernel = Kernel {
    name: "conv_tail",
    parts: &[Source::Text(wgsl::GRID), Source::Text(wgsl::BATCH), Source::Text(wgsl::CONV_TAIL)],
    binds: &[read("batch", U32), read("p", F32), update("state", F32)],
};

impl Op for ConvTail {
    fn kernel(&self) -> Kernel {
        KERNEL
    }

    fn consts(&self, _: &Caps) -> Vec<Const> {
        vec![("WG", WG)]
    }

    fn lens(&self) -> Vec<u64> {
        let state = u64::from(self.slots) * u64::from(self.slot_len);
        vec![BATCH_WORDS, u64::from(self.rows) * u64::from(self.in_stride), state]
    }

    fn grid(&self, size: Size, caps: &Caps) -> [u32; 3] {
        caps.grid(u64::from(size.segments) * u64::from(self.channels.div_ceil(WG)))
    }

    fn cpu(&self, _: Size, bufs: &mut [Vec<u32>]) {
        let [batch, p, state] = bufs else { unreachable!() };
        let (p, state) = (floats(p), floats_mut(state));
        let [channels, stride, offset, slot_len] =
            [self.channels, self.in_stride, self.in_offset, self.slot_len].map(|n| n as usize);
        // Rows are written in order, so that the last four rows of a slot remain.
        for (row, at) in Batch::from_words(batch).rows.iter().enumerate() {
            let ring = at.slot as usize * slot_len + (at.position % 4) as usize * channels;
            let input = row * stride + offset;
            state[ring..ring + channels].copy_from_slice(&p[input..input + channels]);
        }
    }

    fn bytes(&self, size: Size) -> Option<u64> {
        Some(2 * 4 * u64::from(self.channels) * u64::from(size.rows.min(4 * size.segments)))
    }

    fn examples() -> Vec<Example<Self>> {
        let same = |Conv1d { rows, channels, in_stride, in_offset, slots, slot_len }| ConvTail {
            rows,
            channels,
            in_stride,
            in_offset,
            slots,
            slot_len,
        };
        // The largest of these examples would spend its time on comparing 64 MiB of rings.
        let small = Conv1d::examples().into_iter().filter(|e| e.op.channels < 1000);
        small.map(|e| Example { op: same(e.op), batch: e.batch }).collect()
    }
}
