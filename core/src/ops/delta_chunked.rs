//! The chunked delta rule, second half: updates the state chunk by chunk (spec 3.5, WY form).

use super::DeltaWy;
use super::delta_serial::{examples, unit_qkv};
use crate::batch::{BATCH_WORDS, Batch, Size, tiles};
use crate::buf::Elem::{F32, U32};
use crate::caps::Caps;
use crate::kernel::{Const, Kernel, Source, read, update, write};
use crate::numbers;
use crate::op::{Example, Op, floats, floats_mut};
use nemoflash_shaders as wgsl;

numbers! {
    /// For each segment and head, beginning with the state S of the segment's slot (zero at position 0). For each
    /// chunk, with the results of [`DeltaWy`]: `V' = U - W S`, `out = (Q S + scores V') / sqrt(head_dim)`, `S = S + Kᵀ
    /// V'`. Together they compute the same as [`DeltaSerial`](super::DeltaSerial).
    ///
    /// Bindings: `batch`, `qkv` [rows, 3, heads, head_dim] with unit q and k, `w` and `u` [rows, heads, head_dim],
    /// `attn` [rows, heads, CHUNK], `state` [slots, slot_len] with S [heads, head_dim, head_dim] at `state_at` of
    /// each slot, `out` [rows, heads, head_dim].
    pub struct DeltaChunked {
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

impl DeltaChunked {
    /// Key rows of S in workgroup memory, rounded up to whole slices of 16.
    fn keys(&self) -> u32 {
        self.head_dim.next_multiple_of(16)
    }

    /// Value columns of one workgroup, counted in four-vectors: as many as keep S within 8 KiB.
    fn cols(&self) -> u32 {
        let fits = |cols: &u32| (self.head_dim / 4).is_multiple_of(*cols) && self.keys() * cols * 16 <= 8 << 10;
        [4, 2].into_iter().find(fits).unwrap_or(1)
    }
}

const KERNEL: Kernel = Kernel {
    name: "delta_chunked",
    parts: &[
        Source::Text(wgsl::GRID),
        Source::Text(wgsl::BATCH),
        Source::Text(wgsl::OUTER),
        Source::Text(wgsl::DELTA_CHUNKED),
    ],
    binds: &[
        read("batch", U32),
        read("qkv", F32),
        read("w", F32),
        read("u", F32),
        read("attn", F32),
        update("state", F32),
        write("out", F32),
    ],
};

impl Op for DeltaChunked {
    fn kernel(&self) -> Kernel {
        KERNEL
    }

    fn consts(&self, _: &Caps) -> Vec<Const> {
        let cols = self.cols();
        vec![("WG", DeltaWy::CHUNK * cols), ("CHUNK", DeltaWy::CHUNK), ("KEYS", self.keys()), ("COLS", cols)]
    }

    fn lens(&self) -> Vec<u64> {
        let [rows, heads] = [self.rows, self.heads].map(u64::from);
        let width = rows * heads * u64::from(self.head_dim);
        let state = u64::from(self.slots) * u64::from(self.slot_len);
        vec![BATCH_WORDS, 3 * width, width, width, rows * heads * u64::from(DeltaWy::CHUNK), state, width]
    }

    fn grid(&self, size: Size, caps: &Caps) -> [u32; 3] {
        let parts = self.head_dim / 4 / self.cols();
        caps.grid(u64::from(size.segments) * u64::from(self.heads) * u64::from(parts))
    }

    fn cpu(&self, size: Size, bufs: &mut [Vec<u32>]) {
        let [batch, qkv, w, u, attn, state, out] = bufs else { unreachable!() };
        let batch = Batch::from_words(batch);
        let (qkv, w, u, attn) = (floats(qkv), floats(w), floats(u), floats(attn));
        let (state, out) = (floats_mut(state), floats_mut(out));
        let [heads, d, chunk] = [self.heads, self.head_dim, DeltaWy::CHUNK].map(|n| n as usize);
        let scale = 1.0 / (d as f64).sqrt();
        // sum += factor * row
        let add = |sum: &mut [f64], factor: f32, row: &[f64]| {
            sum.iter_mut().zip(row).for_each(|(sum, x)| *sum += f64::from(factor) * x);
        };
        for segment in batch.segments.iter().take(size.segments as usize).filter(|s| s.rows > 0) {
            let fresh = batch.rows[segment.first as usize].position == 0;
            let alone = Batch { segments: vec![*segment], rows: vec![] };
            for head in 0..heads {
                let at = segment.slot as usize * self.slot_len as usize + self.state_at as usize + head * d * d;
                let incoming = state[at..at + d * d].iter().map(|&s| if fresh { 0.0 } else { f64::from(s) });
                let mut s: Vec<f64> = incoming.collect();
                for (_, first, rows) in tiles(&alone, DeltaWy::CHUNK) {
                    let (first, rows) = (first as usize, rows as usize);
                    let part = |i: usize, row: usize| &qkv[(((first + row) * 3 + i) * heads + head) * d..][..d];
                    let mut rest: Vec<Vec<f64>> = Vec::with_capacity(rows); // V'
                    for i in 0..rows {
                        let at = (first + i) * heads + head;
                        let mut v: Vec<f64> = u[at * d..][..d].iter().map(|&u| u.into()).collect();
                        w[at * d..][..d].iter().zip(s.chunks(d)).for_each(|(&w, s)| add(&mut v, -w, s));
                        rest.push(v);
                    }
                    for i in 0..rows {
                        let at = (first + i) * heads + head;
                        let mut o = vec![0.0; d];
                        part(0, i).iter().zip(s.chunks(d)).for_each(|(&q, s)| add(&mut o, q, s));
                        attn[at * chunk..][..rows].iter().zip(&rest).for_each(|(&a, v)| add(&mut o, a, v));
                        out[at * d..][..d].iter_mut().zip(o).for_each(|(out, o)| *out = (o * scale) as f32);
                    }
                    for (i, v) in rest.iter().enumerate() {
                        s.chunks_mut(d).zip(part(1, i)).for_each(|(s, &k)| add(s, k, v));
                    }
                }
                state[at..at + d * d].iter_mut().zip(s).for_each(|(state, s)| *state = s as f32);
            }
        }
    }

    fn examples() -> Vec<Example<Self>> {
        examples(|rows, heads, head_dim, slots, slot_len, state_at| DeltaChunked {
            rows,
            heads,
            head_dim,
            slots,
            slot_len,
            state_at,
        })
    }

    fn input(&self, bind: usize, uniform: &mut dyn FnMut() -> f32) -> Option<Vec<u32>> {
        match bind {
            1 => Some(unit_qkv(self.rows, self.heads, self.head_dim, uniform)),
            // Real W keeps the state from growing. Random rows of length about 1/4 do so, too.
            2 => {
                let size = 0.25 * (3.0 / self.head_dim as f32).sqrt();
                let len = self.rows * self.heads * self.head_dim;
                Some((0..len).map(|_| ((2.0 * uniform() - 1.0) * size).to_bits()).collect())
            }
            _ => None,
        }
    }

    fn bytes(&self, size: Size) -> Option<u64> {
        let [rows, segments, heads, d] = [size.rows, size.segments, self.heads, self.head_dim].map(u64::from);
        // Q, K, W, U, out and the scores of each row, and the state of each segment in and out.
        Some(4 * heads * (rows * (5 * d + u64::from(DeltaWy::CHUNK)) + segments * 2 * d * d))
    }
}
