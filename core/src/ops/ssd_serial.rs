//! Mamba2 scan, one token after the other (spec 3.4 steps 4 and 5).

use super::fold;
use super::mamba2::{Dims, convolved, numbers, params, scan_examples};
use crate::batch::{BATCH_WORDS, Batch, Size};
use crate::buf::Elem::{F32, U32};
use crate::caps::Caps;
use crate::kernel::{Const, Kernel, Source, read, update, write};
use crate::numbers;
use crate::op::{Example, Op, floats, floats_mut};
use nemoflash_shaders as wgsl;

numbers! {
    /// For every head and token: `Δ = softplus(dt + dt_bias)`, `S = exp(Δ A) S + (Δ x) ⊗ B`, `y = S C + D x`.
    /// `xbc` is x | B | C after convolution and silu (see [`Conv1d`](super::Conv1d)). `dt` is the last `heads` columns
    /// of `p`. `y` is not gated yet (see [`GatedNorm`](super::GatedNorm)). `head_dim` and `d_state` are multiples of 4.
    pub struct SsdSerial {
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
    name: "ssd_serial",
    parts: &[
        Source::Fold,
        Source::Text(wgsl::GRID),
        Source::Text(wgsl::BATCH),
        Source::Text(wgsl::SSD),
        Source::Text(wgsl::SSD_SERIAL),
    ],
    binds: &[
        read("batch", U32),
        read("xbc", F32),
        read("p", F32),
        read("params", F32),
        update("state", F32),
        write("y", F32),
    ],
};

impl SsdSerial {
    fn dims(&self) -> Dims {
        let [heads, head_dim, d_state, in_stride, slot_len, state_at] =
            [self.heads, self.head_dim, self.d_state, self.in_stride, self.slot_len, self.state_at].map(|n| n as usize);
        Dims { heads, head_dim, d_state, in_stride, slot_len, state_at }
    }
}

impl Op for SsdSerial {
    fn kernel(&self) -> Kernel {
        KERNEL
    }

    fn consts(&self, caps: &Caps) -> Vec<Const> {
        // A lane takes four columns of d_state at a time. More lanes than that would be idle.
        let lanes = (self.d_state / 4).next_power_of_two().min(caps.subgroup.unwrap_or(32));
        [&fold(lanes, caps)[..], &[("BLOCKS", (self.d_state / 4).div_ceil(lanes))]].concat()
    }

    fn lens(&self) -> Vec<u64> {
        let [rows, heads, in_stride] = [self.rows, self.heads, self.in_stride].map(u64::from);
        let (d_inner, d_state) = (heads * u64::from(self.head_dim), u64::from(self.d_state));
        let state = u64::from(self.slots) * u64::from(self.slot_len);
        vec![BATCH_WORDS, rows * (d_inner + 2 * d_state), rows * in_stride, 3 * heads, state, rows * d_inner]
    }

    fn grid(&self, size: Size, caps: &Caps) -> [u32; 3] {
        caps.grid(u64::from(size.segments) * u64::from(self.heads) * u64::from(self.head_dim / 4))
    }

    fn cpu(&self, _: Size, bufs: &mut [Vec<u32>]) {
        let [batch, xbc, p, params, state, y] = bufs else { unreachable!() };
        let batch = Batch::from_words(batch);
        let (xbc, p, params) = (floats(xbc), floats(p), floats(params));
        let (state, y) = (floats_mut(state), floats_mut(y));
        let dims = self.dims();
        let (d_inner, d_state) = (dims.d_inner(), dims.d_state);
        for segment in &batch.segments {
            let mut s = dims.incoming(&batch, segment.first, state);
            for row in segment.first as usize..(segment.first + segment.rows) as usize {
                let (x, bc) = xbc[row * dims.channels()..(row + 1) * dims.channels()].split_at(d_inner);
                let (b, c) = bc.split_at(d_state);
                for (i, s) in s.chunks_mut(d_state).enumerate() {
                    let head = i / dims.head_dim;
                    let step = dims.step(p, params, row, head);
                    let decay = (step * f64::from(params[head])).exp();
                    let x = f64::from(x[i]);
                    let mut sum = f64::from(params[dims.heads + head]) * x;
                    for ((s, &b), &c) in s.iter_mut().zip(b).zip(c) {
                        *s = decay * *s + step * x * f64::from(b);
                        sum += *s * f64::from(c);
                    }
                    y[row * d_inner + i] = sum as f32;
                }
            }
            let at = dims.state(segment.slot);
            for (to, s) in state[at..].iter_mut().zip(s) {
                *to = s as f32;
            }
        }
    }

    fn examples() -> Vec<Example<Self>> {
        let make = |heads, head_dim, d_state, segments: &[(u32, u32, u32)]| {
            let (rows, in_stride, slots, slot_len, state_at) = numbers(heads, head_dim, d_state, segments);
            SsdSerial { rows, heads, head_dim, d_state, in_stride, slots, slot_len, state_at }
        };
        let mut list = scan_examples(make);
        // A state that is too large for the chunked form, and more workgroups than one grid dimension holds.
        for (heads, head_dim, d_state, segments) in [
            (2, 192, 256, vec![(0, 4, 3)]),
            (1, 256, 96, vec![(0, 0, 9)]),
            (33, 16, 4, (0..500).map(|i| (i, i % 3, 1)).collect()),
        ] {
            list.push(Example::segments(make(heads, head_dim, d_state, &segments), &segments));
        }
        list
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
        let row = dims.channels() + dims.heads + dims.d_inner();
        let states = 2 * u64::from(size.segments) * dims.state_len() as u64;
        Some(4 * (u64::from(size.rows) * row as u64 + states))
    }
}
