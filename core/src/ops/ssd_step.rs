//! One decode step of Mamba2: convolution, scan and gate (spec 3.4 steps 2 to 6, without the norm).

use super::conv1d::{input_before, silu};
use super::mamba2::{Dims, numbers, params};
use super::most_threads;
use crate::batch::{BATCH_WORDS, Batch, Size};
use crate::buf::Elem::{F32, U32};
use crate::caps::Caps;
use crate::kernel::{Const, Kernel, Source, read, update, write};
use crate::numbers;
use crate::op::{Example, Op, floats, floats_mut};
use nemoflash_shaders as wgsl;

numbers! {
    /// Computes what [`Conv1d`](super::Conv1d), [`ConvTail`](super::ConvTail) and [`SsdSerial`](super::SsdSerial)
    /// compute, in one dispatch, where every segment has one row. It updates the ring and the state of the row's slot,
    /// and `out = y ⊙ silu(z)`. The output projection applies the norm. `head_dim` and `d_state` are multiples of 4,
    /// and `d_state` is at most 1024.
    pub struct SsdStep {
        /// Heads; `d_inner = heads * head_dim`.
        pub heads: u32,
        /// Values of a head.
        pub head_dim: u32,
        /// Values in the state for each value of a head.
        pub d_state: u32,
        /// Values in a row of `p`: `2 * d_inner + 2 * d_state + heads`.
        pub in_stride: u32,
        /// Values in a slot, a multiple of 4. The first `4 * (d_inner + 2 * d_state)` are the ring.
        pub slot_len: u32,
        /// Where the state `[heads, head_dim, d_state]` begins in a slot, a multiple of 4.
        pub state_at: u32,
    } host {
        /// Rows that the buffers hold, each of another slot.
        pub rows: u32,
        /// Slots of `state`.
        pub slots: u32,
    }
}

const KERNEL: Kernel = Kernel {
    name: "ssd_step",
    parts: &[
        Source::Text(wgsl::GRID),
        Source::Text(wgsl::BATCH),
        Source::Text(wgsl::SILU),
        Source::Text(wgsl::SSD),
        Source::Text(wgsl::SSD_STEP),
    ],
    binds: &[
        read("batch", U32),
        read("p", F32),
        read("conv", F32),
        read("bias", F32),
        read("params", F32),
        update("state", F32),
        write("out", F32),
    ],
};

impl SsdStep {
    fn dims(&self) -> Dims {
        let [heads, head_dim, d_state, in_stride, slot_len, state_at] =
            [self.heads, self.head_dim, self.d_state, self.in_stride, self.slot_len, self.state_at].map(|n| n as usize);
        Dims { heads, head_dim, d_state, in_stride, slot_len, state_at }
    }

    /// (threads of a workgroup, threads along d_state). Each thread has one 4 x 4 block of the state. At the published
    /// sizes (head_dim 64, d_state 128) two workgroups share a head, which keeps a large GPU busier.
    fn threads(&self, caps: &Caps) -> (u32, u32) {
        let lanes = (self.d_state / 4).next_power_of_two().min(256);
        (lanes * (self.head_dim / 4).next_power_of_two().min((most_threads(caps) / lanes).max(1)), lanes)
    }
}

impl Op for SsdStep {
    fn kernel(&self) -> Kernel {
        KERNEL
    }

    fn consts(&self, caps: &Caps) -> Vec<Const> {
        let (threads, lanes) = self.threads(caps);
        vec![("WG", threads), ("LANES", lanes)]
    }

    fn lens(&self) -> Vec<u64> {
        let dims = self.dims();
        let (rows, channels) = (u64::from(self.rows), dims.channels() as u64);
        let state = u64::from(self.slots) * u64::from(self.slot_len);
        let p = rows * u64::from(self.in_stride);
        vec![BATCH_WORDS, p, 4 * channels, channels, 3 * u64::from(self.heads), state, rows * dims.d_inner() as u64]
    }

    fn grid(&self, size: Size, caps: &Caps) -> [u32; 3] {
        let (threads, lanes) = self.threads(caps);
        let across = (self.head_dim / 4).div_ceil(threads / lanes);
        caps.grid(u64::from(size.rows) * u64::from(self.heads) * u64::from(across))
    }

    fn cpu(&self, size: Size, bufs: &mut [Vec<u32>]) {
        let [batch, p, conv, bias, params, state, out] = bufs else { unreachable!() };
        let batch = Batch::from_words(batch);
        let (p, conv, bias, params) = (floats(p), floats(conv), floats(bias), floats(params));
        let (state, out) = (floats_mut(state), floats_mut(out));
        let dims = self.dims();
        let (d_inner, d_state, channels) = (dims.d_inner(), dims.d_state, dims.channels());
        for row in 0..size.rows as usize {
            let now = batch.rows[row];
            let (z, raw) = p[row * dims.in_stride..][..d_inner + channels].split_at(d_inner);
            let ring = now.slot as usize * dims.slot_len;
            let convolved: Vec<f64> = (0..channels)
                .map(|c| {
                    let from_ring = |entry: u32| state[ring + entry as usize * channels + c];
                    let input = |back| input_before(&batch, row, back, |_| raw[c], from_ring);
                    let taps = (0..4).map(|j| f64::from(conv[4 * c + j as usize]) * input(3 - j));
                    silu(f64::from(bias[c]) + taps.sum::<f64>())
                })
                .collect();
            let ring = ring + (now.position % 4) as usize * channels;
            state[ring..ring + channels].copy_from_slice(raw);

            let mut s = dims.incoming(&batch, row as u32, state);
            let (b, c) = convolved[d_inner..].split_at(d_state);
            for (i, s) in s.chunks_mut(d_state).enumerate() {
                let head = i / dims.head_dim;
                let step = dims.step(p, params, row, head);
                let decay = (step * f64::from(params[head])).exp();
                let x = convolved[i];
                let mut y = f64::from(params[dims.heads + head]) * x;
                for ((s, b), c) in s.iter_mut().zip(b).zip(c) {
                    *s = decay * *s + step * x * b;
                    y += *s * c;
                }
                out[row * d_inner + i] = (y * silu(z[i].into())) as f32;
            }
            let at = dims.state(now.slot);
            for (to, s) in state[at..].iter_mut().zip(s) {
                *to = s as f32;
            }
        }
    }

    fn examples() -> Vec<Example<Self>> {
        let case = |heads, head_dim, d_state, positions: &[u32]| {
            // The order of slots differs from the order of rows.
            let count = positions.len() as u32;
            let segments: Vec<_> = positions.iter().zip(0..).map(|(&at, i)| ((i + 1) % count, at, 1)).collect();
            let (rows, in_stride, slots, slot_len, state_at) = numbers(heads, head_dim, d_state, &segments);
            let op = SsdStep { rows, heads, head_dim, d_state, in_stride, slots, slot_len, state_at };
            Example::segments(op, &segments)
        };
        vec![
            case(1, 4, 4, &[0]),
            case(2, 64, 128, &[256]),
            case(8, 32, 32, &[0, 1, 2, 3, 4, 5, 6, 7]),
            case(3, 20, 100, &[1023, 0, 17]),
            case(4, 64, 128, &[1, 5, 300]),
            case(1, 96, 16, &[2, 3]),
            case(2, 192, 256, &[9]),
            case(1, 256, 64, &[4, 1]),
            // More workgroups than one grid dimension holds.
            case(129, 4, 4, &(0..511).collect::<Vec<_>>()),
        ]
    }

    fn input(&self, bind: usize, uniform: &mut dyn FnMut() -> f32) -> Option<Vec<u32>> {
        (bind == 4).then(|| params(self.heads, uniform))
    }

    fn bytes(&self, size: Size) -> Option<u64> {
        let dims = self.dims();
        // Four inputs and the new ring entry of every channel, gate and result, and the state in and out.
        let row = 5 * dims.channels() + dims.heads + 2 * dims.d_inner() + 2 * dims.state_len();
        Some(4 * (u64::from(size.rows) * row as u64 + 5 * dims.channels() as u64))
    }
}
