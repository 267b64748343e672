//! The delta rule, token by token (spec 3.5 steps 6 and 7).

use super::fold;
use super::delta_gates::lanes;
use crate::batch::{BATCH_WORDS, Batch, Size};
use crate::buf::Elem::{F32, U32};
use crate::caps::Caps;
use crate::kernel::{Const, Kernel, Source, read, update, write};
use crate::numbers;
use crate::op::{Example, Op, floats, floats_mut};
use nemoflash_shaders as wgsl;

numbers! {
    /// For each segment and head, beginning with the state S [key, value] of the segment's slot (zero at position 0),
    /// row by row: `d = beta (v - Sᵀk)`, `S = S + k dᵀ`, `out = Sᵀq / sqrt(head_dim)`.
    ///
    /// Bindings: `batch`, `qkv` [rows, 3, heads, head_dim] with unit q and k, `beta` [rows, heads], `state`
    /// [slots, slot_len] with S [heads, head_dim, head_dim] at `state_at` of each slot, `out` [rows, heads, head_dim].
    pub struct DeltaSerial {
        /// Heads.
        pub heads: u32,
        /// Values of one q, k or v of a head, a multiple of 4.
        pub head_dim: u32,
        /// Values of one slot, a multiple of 4.
        pub slot_len: u32,
        /// Where S begins in a slot, a multiple of 4.
        pub state_at: u32,
    } host {
        /// Rows the buffers hold.
        pub rows: u32,
        /// Slots the state holds.
        pub slots: u32,
    }
}

const KERNEL: Kernel = Kernel {
    name: "delta_serial",
    parts: &[
        Source::Reduce,
        Source::Fold,
        Source::Text(wgsl::GRID),
        Source::Text(wgsl::BATCH),
        Source::Text(wgsl::OUTER),
        Source::Text(wgsl::DELTA_SERIAL),
    ],
    binds: &[read("batch", U32), read("qkv", F32), read("beta", F32), update("state", F32), write("out", F32)],
};

impl Op for DeltaSerial {
    fn kernel(&self) -> Kernel {
        KERNEL
    }

    fn consts(&self, caps: &Caps) -> Vec<Const> {
        let lanes = lanes(self.head_dim, caps);
        [&fold(lanes, caps)[..], &[("QUADS", (self.head_dim / 4).div_ceil(lanes))]].concat()
    }

    fn lens(&self) -> Vec<u64> {
        let [rows, heads] = [self.rows, self.heads].map(u64::from);
        let width = rows * heads * u64::from(self.head_dim);
        vec![BATCH_WORDS, 3 * width, rows * heads, u64::from(self.slots) * u64::from(self.slot_len), width]
    }

    fn grid(&self, size: Size, caps: &Caps) -> [u32; 3] {
        caps.grid(u64::from(size.segments) * u64::from(self.heads) * u64::from(self.head_dim / 4))
    }

    fn cpu(&self, size: Size, bufs: &mut [Vec<u32>]) {
        let [batch, qkv, beta, state, out] = bufs else { unreachable!() };
        let batch = Batch::from_words(batch);
        let (qkv, beta, state, out) = (floats(qkv), floats(beta), floats_mut(state), floats_mut(out));
        let [heads, d] = [self.heads, self.head_dim].map(|n| n as usize);
        let wide = |x: &[f32]| x.iter().map(|&x| f64::from(x)).collect::<Vec<f64>>();
        for segment in batch.segments.iter().take(size.segments as usize).filter(|s| s.rows > 0) {
            let fresh = batch.rows[segment.first as usize].position == 0;
            for head in 0..heads {
                let at = segment.slot as usize * self.slot_len as usize + self.state_at as usize + head * d * d;
                let mut s = if fresh { vec![0.0; d * d] } else { wide(&state[at..at + d * d]) };
                for row in segment.first as usize..(segment.first + segment.rows) as usize {
                    let part = |i| wide(&qkv[((row * 3 + i) * heads + head) * d..][..d]);
                    let o = token(&mut s, &part(0), &part(1), &part(2), beta[row * heads + head].into());
                    for (out, o) in out[(row * heads + head) * d..][..d].iter_mut().zip(o) {
                        *out = o as f32;
                    }
                }
                for (state, s) in state[at..at + d * d].iter_mut().zip(s) {
                    *state = s as f32;
                }
            }
        }
    }

    fn examples() -> Vec<Example<Self>> {
        let make = |rows, heads, head_dim, slots, slot_len, state_at| DeltaSerial {
            rows,
            heads,
            head_dim,
            slots,
            slot_len,
            state_at,
        };
        let mut list = examples(make);
        // 8 segments of 8200 heads are more than the 65,535 workgroups of one grid dimension. The chunked form never
        // meets such a grid: it is used for long segments, and a step has few of those.
        let segments: Vec<_> = (0..8).map(|slot| (slot, slot % 3, 1)).collect();
        list.push(Example::segments(make(8, 8200, 4, 8, 16 * 8200, 0), &segments));
        list
    }

    fn input(&self, bind: usize, uniform: &mut dyn FnMut() -> f32) -> Option<Vec<u32>> {
        match bind {
            1 => Some(unit_qkv(self.rows, self.heads, self.head_dim, uniform)),
            2 => Some((0..self.rows * self.heads).map(|_| uniform().to_bits()).collect()),
            _ => None,
        }
    }

    fn bytes(&self, size: Size) -> Option<u64> {
        let [rows, segments, heads, d] = [size.rows, size.segments, self.heads, self.head_dim].map(u64::from);
        // q, k, v and out of each row, beta, and the state of each segment in and out.
        Some(4 * heads * (rows * (4 * d + 1) + segments * 2 * d * d))
    }
}

/// One token of the delta rule for one head: updates S [key, value] and returns o (spec 3.5 steps 6 and 7).
pub(super) fn token(s: &mut [f64], q: &[f64], k: &[f64], v: &[f64], beta: f64) -> Vec<f64> {
    let d = v.len();
    let mut e = v.to_vec();
    for (s, k) in s.chunks(d).zip(k) {
        e.iter_mut().zip(s).for_each(|(e, s)| *e -= k * s);
    }
    let scale = 1.0 / (k.len() as f64).sqrt();
    let mut o = vec![0.0; d];
    for ((s, k), q) in s.chunks_mut(d).zip(k).zip(q) {
        for ((s, e), o) in s.iter_mut().zip(&e).zip(&mut o) {
            *s += k * beta * e;
            *o += q * scale * *s;
        }
    }
    o
}

/// The sizes on which both forms of the scan are tested. `make` makes the operator from (rows, heads, head_dim, slots,
/// slot_len, state_at).
pub(super) fn examples<O>(make: impl Fn(u32, u32, u32, u32, u32, u32) -> O) -> Vec<Example<O>> {
    let case = |heads, head_dim, slots, segments: &[(u32, u32, u32)]| {
        let rows = segments.iter().map(|s| s.2).sum();
        let state_at = 12 * heads * head_dim;
        let slot_len = state_at + heads * head_dim * head_dim;
        Example::segments(make(rows, heads, head_dim, slots, slot_len, state_at), segments)
    };
    let eight: Vec<_> = (0..8).map(|slot| (slot, slot % 3, 1)).collect();
    vec![
        case(1, 4, 1, &[(0, 0, 1)]),
        case(1, 4, 1, &[(0, 7, 130)]),
        case(3, 16, 2, &[(1, 5, 2)]),
        case(2, 32, 1, &[(0, 0, 65)]),
        case(1, 96, 1, &[(0, 1, 31)]),
        case(1, 128, 1, &[(0, 9, 64)]),
        case(2, 128, 2, &[(1, 256, 33)]),
        case(1, 192, 1, &[(0, 4, 5)]),
        case(1, 256, 1, &[(0, 3, 3)]),
        case(2, 64, 4, &[(3, 40, 63), (0, 0, 32), (2, 8, 1), (1, 0, 34)]),
        case(1, 64, 1, &[(0, 3, 127)]),
        case(1, 16, 1, &[(0, 2, 512)]),
        case(2, 64, 8, &eight),
    ]
}

/// Random rows q | k | v, with q and k of unit length.
pub(super) fn unit_qkv(rows: u32, heads: u32, head_dim: u32, uniform: &mut dyn FnMut() -> f32) -> Vec<u32> {
    let mut words = vec![];
    for part in (0..rows).flat_map(|_| 0..3) {
        for _ in 0..heads {
            let x: Vec<f32> = (0..head_dim).map(|_| 2.0 * uniform() - 1.0).collect();
            let norm = x.iter().map(|x| x * x).sum::<f32>().sqrt().max(1e-3);
            words.extend(x.iter().map(|x| if part < 2 { x / norm } else { *x }.to_bits()));
        }
    }
    words
}
