//! One decoded token of DeltaNet, from the joint projection to the normalised heads (spec 3.5 steps 2 to 8).

use super::delta_gates::sigmoid;
use super::delta_serial::token;
use super::most_threads;
use crate::batch::{BATCH_WORDS, Batch, Size};
use crate::buf::Elem::{F32, U32};
use crate::caps::Caps;
use crate::kernel::{Const, Kernel, Source, read, update, write};
use crate::numbers;
use crate::op::{Example, Op, floats, floats_mut};
use nemoflash_shaders as wgsl;

numbers! {
    /// For rows that are each the only row of their slot: convolution and silu of q, k and v, unit q and k, beta, the
    /// delta rule, and RMSNorm of each head.
    ///
    /// Bindings: `batch`, `p` [rows, in_stride] the joint projection q | k | v | raw beta, `conv` [3 * heads *
    /// head_dim, 4] with the weight of the current input last, `w` `[head_dim]`, `state` [slots, slot_len], `out`
    /// [rows, heads, head_dim]. A slot has the raw inputs of the last four positions, [4, 3 * heads * head_dim] with
    /// those of position i at i % 4, and the state S [heads, head_dim, head_dim] at `state_at`.
    pub struct DeltaStep {
        /// Heads.
        pub heads: u32,
        /// Values of one q, k or v of a head: a multiple of 4, at most 256.
        pub head_dim: u32,
        /// Values in one row of `p`: `heads * (3 * head_dim + 1)`.
        pub in_stride: u32,
        /// Values of one slot, a multiple of 4.
        pub slot_len: u32,
        /// Where S begins in a slot, a multiple of 4.
        pub state_at: u32,
        /// Added to the mean square of a head. The published code has 1e-5 as a constant; config.json does not have it.
        pub eps: f32,
    } host {
        /// Rows the buffers hold.
        pub rows: u32,
        /// Slots the state holds.
        pub slots: u32,
    }
}

const KERNEL: Kernel = Kernel {
    name: "delta_step",
    parts: &[
        Source::Reduce,
        Source::Text(wgsl::GRID),
        Source::Text(wgsl::BATCH),
        Source::Text(wgsl::OUTER),
        Source::Text(wgsl::DELTA_STEP),
    ],
    binds: &[
        read("batch", U32),
        read("p", F32),
        read("conv", F32),
        read("w", F32),
        update("state", F32),
        write("out", F32),
    ],
};

impl Op for DeltaStep {
    fn kernel(&self) -> Kernel {
        KERNEL
    }

    fn consts(&self, caps: &Caps) -> Vec<Const> {
        // As many groups of key rows as there are threads for, each with at least four rows. On a GPU in software there are
        // few threads, but each has 64 rows at most: with 256 lavapipe compiles for seconds (the examples below took 51 s,
        // and take 15 s).
        let columns = self.head_dim / 4;
        let threads = most_threads(caps).max(columns * columns.div_ceil(16)).min(256);
        let groups = (threads / columns).clamp(1, columns);
        vec![
            ("WG", (groups * columns).next_power_of_two()),
            ("COLUMNS", columns),
            ("GROUPS", groups),
            ("QUADS", columns.div_ceil(groups)),
        ]
    }

    fn lens(&self) -> Vec<u64> {
        let [rows, heads, d] = [self.rows, self.heads, self.head_dim].map(u64::from);
        let state = u64::from(self.slots) * u64::from(self.slot_len);
        vec![BATCH_WORDS, rows * u64::from(self.in_stride), 12 * heads * d, d, state, rows * heads * d]
    }

    fn grid(&self, size: Size, caps: &Caps) -> [u32; 3] {
        caps.grid(u64::from(size.rows) * u64::from(self.heads))
    }

    fn cpu(&self, size: Size, bufs: &mut [Vec<u32>]) {
        let [batch, p, conv, w, state, out] = bufs else { unreachable!() };
        let batch = Batch::from_words(batch);
        let (p, conv, w, state, out) = (floats(p), floats(conv), floats(w), floats_mut(state), floats_mut(out));
        let [heads, d, in_stride] = [self.heads, self.head_dim, self.in_stride].map(|n| n as usize);
        let channels = 3 * heads * d;
        for (i, row) in batch.rows.iter().enumerate().take(size.rows as usize) {
            let p = &p[i * in_stride..][..in_stride];
            let slot = &mut state[row.slot as usize * self.slot_len as usize..][..self.slot_len as usize];
            let (tail, memory) = slot.split_at_mut(self.state_at as usize);
            let at = |age: u32| (row.position.wrapping_sub(age) % 4) as usize * channels;
            let mut qkv: Vec<f64> = (0..channels)
                .map(|c| {
                    let past = |age| if row.position < age { 0.0 } else { f64::from(tail[at(age) + c]) };
                    let inputs = [past(3), past(2), past(1), f64::from(p[c])];
                    let y: f64 = inputs.iter().zip(&conv[4 * c..4 * c + 4]).map(|(x, &w)| x * f64::from(w)).sum();
                    y * sigmoid(y)
                })
                .collect();
            tail[at(0)..at(0) + channels].copy_from_slice(&p[..channels]);
            for x in qkv[..2 * heads * d].chunks_mut(d) {
                let norm = (x.iter().map(|x| x * x).sum::<f64>() + 1e-6).sqrt();
                x.iter_mut().for_each(|x| *x /= norm);
            }
            for head in 0..heads {
                let memory = &mut memory[head * d * d..][..d * d];
                let mut s: Vec<f64> =
                    memory.iter().map(|&s| if row.position == 0 { 0.0 } else { s.into() }).collect();
                let part = |i: usize| &qkv[(i * heads + head) * d..][..d];
                let o = token(&mut s, part(0), part(1), part(2), sigmoid(p[channels + head].into()));
                memory.iter_mut().zip(s).for_each(|(memory, s)| *memory = s as f32);
                let squares: f64 = o.iter().map(|o| o * o).sum();
                let scale = 1.0 / (squares / d as f64 + f64::from(self.eps)).sqrt();
                let out = &mut out[(i * heads + head) * d..][..d];
                for ((out, o), &w) in out.iter_mut().zip(o).zip(w) {
                    *out = (o * scale * f64::from(w)) as f32;
                }
            }
        }
    }

    fn examples() -> Vec<Example<Self>> {
        let case = |heads, head_dim, slots, rows: &[(u32, u32)]| {
            let segments: Vec<_> = rows.iter().map(|&(slot, position)| (slot, position, 1)).collect();
            let in_stride = heads * (3 * head_dim + 1);
            let state_at = 12 * heads * head_dim;
            let slot_len = state_at + heads * head_dim * head_dim;
            let rows = rows.len() as u32;
            let op = DeltaStep { rows, heads, head_dim, in_stride, slots, slot_len, state_at, eps: 1e-5 };
            Example::segments(op, &segments)
        };
        let eight: Vec<_> = (0..8).map(|slot| (slot, slot % 5)).collect();
        vec![
            case(1, 4, 1, &[(0, 0)]),
            case(3, 16, 3, &[(2, 1), (0, 2)]),
            case(1, 20, 1, &[(0, 9)]),
            case(5, 32, 2, &[(1, 3), (0, 4)]),
            case(4, 64, 8, &[(7, 100), (1, 0), (2, 1), (3, 2), (0, 3), (6, 5), (5, 6), (4, 4095)]),
            case(3, 96, 2, &[(1, 7)]),
            case(16, 128, 1, &[(0, 300)]),
            case(3, 128, 3, &[(0, 1), (1, 2), (2, 1_000_003)]),
            case(1, 192, 1, &[(0, 2)]),
            case(2, 256, 1, &[(0, 77)]),
            // 8 rows of 8200 heads are more than the 65,535 workgroups of one grid dimension.
            case(8200, 4, 8, &eight),
        ]
    }

    fn bytes(&self, size: Size) -> Option<u64> {
        let [rows, heads, d, in_stride] = [size.rows, self.heads, self.head_dim, self.in_stride].map(u64::from);
        // For each row: projection, three older inputs, the new input, state in and out, result. The convolution
        // weights and the norm once.
        Some(4 * (rows * (in_stride + 12 * heads * d + 2 * heads * d * d + heads * d) + 12 * heads * d + d))
    }
}
