//! The chunked Mamba2 scan with cooperative matrices: carries the state from chunk to chunk (spec 3.4, chunked prefill).

use super::mamba2::{CHUNK, Dims, chunked, convolved, numbers, params, scan_examples};
use super::ssd_local::{bc_len, width};
use super::{Half, SsdChunk, half};
use crate::batch::{Batch, Size};
use crate::buf::Elem::{F16, F32, U32};
use crate::caps::Caps;
use crate::kernel::{COOP, Const, Kernel, Source, read, update, write};
use crate::numbers;
use crate::op::{Example, Op, floats, floats_mut};
use nemoflash_shaders as wgsl;

numbers! {
    /// Computes the same as [`SsdChunk`] from the `scores` and `bc` of [`SsdLocal`](super::SsdLocal), with f16 products and
    /// f32 sums and states. Work is split by segment, head and 32 rows of the head: at the published sizes one segment has
    /// 128 (1B) or 192 (3B) workgroups. `head_dim` and `d_state` are multiples of 4, and `d_state` is at most
    /// [`SsdCarry::MAX_STATE`].
    pub struct SsdCarry {
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
    name: "ssd_carry",
    parts: &[
        Source::Text(wgsl::GRID),
        Source::Text(wgsl::BATCH),
        Source::Text(wgsl::SSD),
        Source::Text(wgsl::SSD_CARRY),
    ],
    binds: &[
        read("batch", U32),
        read("xbc", F32),
        read("p", F32),
        read("params", F32),
        read("scores", F32),
        read("bc", F16),
        update("state", F32),
        write("y", F32),
    ],
};

impl SsdCarry {
    /// The largest `d_state` whose rows fit into 48 KiB of workgroup memory.
    pub const MAX_STATE: u32 = 128;

    fn plain(&self) -> SsdChunk {
        let SsdCarry { heads, head_dim, d_state, in_stride, slot_len, state_at, rows, slots } = *self;
        SsdChunk { heads, head_dim, d_state, in_stride, slot_len, state_at, rows, slots }
    }

    fn dims(&self) -> Dims {
        self.plain().dims()
    }
}

impl Op for SsdCarry {
    fn kernel(&self) -> Kernel {
        KERNEL
    }

    fn consts(&self, _: &Caps) -> Vec<Const> {
        let width = width(self.d_state);
        let loads = CHUNK * width / 4 / 256;
        vec![("WG", 256), ("WIDTH", width), ("BLOCKS", width / 64), ("SLICES", width / 16), ("LOADS", loads), COOP]
    }

    fn coop_only(&self) -> bool {
        true
    }

    fn lens(&self) -> Vec<u64> {
        let mut lens = self.plain().lens();
        lens.insert(5, bc_len(self.rows, self.d_state));
        lens
    }

    fn grid(&self, size: Size, caps: &Caps) -> [u32; 3] {
        caps.grid(u64::from(size.segments) * u64::from(self.heads) * u64::from(self.head_dim.div_ceil(32)))
    }

    fn cpu(&self, _: Size, bufs: &mut [Vec<u32>]) {
        let [batch, xbc, p, params, scores, bc, state, y] = bufs else { unreachable!() };
        let (xbc, bc, dims) = (floats(xbc), bytemuck::cast_slice::<u32, Half>(bc), self.dims());
        let (d_inner, d_state, width) = (dims.d_inner(), dims.d_state, width(self.d_state) as usize);
        let of = |row: usize, at: usize| match at.checked_sub(d_inner) {
            None => f64::from(xbc[row * dims.channels() + at]),
            Some(at) => 16.0 * f64::from(bc[(row * 2 + at / d_state) * width + at % d_state]),
        };
        let (p, params, scores) = (floats(p), floats(params), floats(scores));
        chunked(&dims, &Batch::from_words(batch), &of, [p, params, scores], floats_mut(state), floats_mut(y));
    }

    fn examples() -> Vec<Example<Self>> {
        scan_examples(|heads, head_dim, d_state, segments| {
            let (rows, in_stride, slots, slot_len, state_at) = numbers(heads, head_dim, d_state, segments);
            SsdCarry { rows, heads, head_dim, d_state, in_stride, slots, slot_len, state_at }
        })
    }

    fn input(&self, bind: usize, uniform: &mut dyn FnMut() -> f32) -> Option<Vec<u32>> {
        match bind {
            1 => Some(convolved(self.lens()[1], uniform)),
            3 => Some(params(self.heads, uniform)),
            5 => {
                let (width, d_state) = (width(self.d_state), self.d_state);
                let mut value =
                    |i: u32| if i % width < d_state { half((1.5 * uniform() - 0.28) / 16.0) } else { Half::ZERO };
                let halves: Vec<Half> = (0..bc_len(self.rows, d_state) as u32).map(&mut value).collect();
                Some(bytemuck::pod_collect_to_vec(&halves))
            }
            _ => None,
        }
    }

    fn bytes(&self, size: Size) -> Option<u64> {
        let rows = u64::from(size.rows);
        self.plain()
            .bytes(size)
            .map(|bytes| bytes - rows * 8 * u64::from(self.d_state) + rows * 4 * u64::from(width(self.d_state)))
    }
}
