//! The chunked delta rule with cooperative matrices, second half: updates the state chunk by chunk (spec 3.5, WY form).

use super::delta_local::width;
use super::delta_serial::{examples, unit_qkv};
use super::{DeltaChunked, DeltaLocal, DeltaWy, Half, half};
use crate::batch::{BATCH_WORDS, Size};
use crate::buf::Elem::{F16, F32, U32};
use crate::caps::Caps;
use crate::kernel::{COOP, Const, Kernel, Source, read, update, write};
use crate::numbers;
use crate::op::{Example, Op, floats};
use nemoflash_shaders as wgsl;

numbers! {
    /// Computes the same as [`DeltaChunked`] from the results of [`DeltaLocal`], with f16 products and f32 sums and states. Work
    /// is split by segment, head and 16 value columns: at the published sizes one segment has 128 (1B) or 192 (3B) workgroups.
    ///
    /// Bindings: `batch`, `wqk`, `u` and `attn` of [`DeltaLocal`], `state` [slots, slot_len] with S [heads, head_dim, head_dim]
    /// at `state_at` of each slot, `out` [rows, heads, head_dim].
    pub struct DeltaCarry {
        /// Heads.
        pub heads: u32,
        /// Values of one q, k or v of a head, a multiple of 4, at most [`DeltaLocal::MAX_HEAD`].
        pub head_dim: u32,
        /// Values of one slot, a multiple of 4.
        pub slot_len: u32,
        /// Where S begins in a slot, a multiple of 4.
        pub state_at: u32,
    } host {
        /// Rows of the step.
        pub rows: u32,
        /// Slots the state holds.
        pub slots: u32,
    }
}

const KERNEL: Kernel = Kernel {
    name: "delta_carry",
    parts: &[Source::Text(wgsl::GRID), Source::Text(wgsl::BATCH), Source::Text(wgsl::DELTA_CARRY)],
    binds: &[
        read("batch", U32),
        read("wqk", F16),
        read("u", F32),
        read("attn", F16),
        update("state", F32),
        write("out", F32),
    ],
};

impl DeltaCarry {
    fn local(&self) -> DeltaLocal {
        DeltaLocal { heads: self.heads, head_dim: self.head_dim, rows: self.rows }
    }

    fn plain(&self) -> DeltaChunked {
        let DeltaCarry { heads, head_dim, slot_len, state_at, rows, slots } = *self;
        DeltaChunked { heads, head_dim, slot_len, state_at, rows, slots }
    }
}

impl Op for DeltaCarry {
    fn kernel(&self) -> Kernel {
        KERNEL
    }

    fn consts(&self, _: &Caps) -> Vec<Const> {
        let width = width(self.head_dim);
        vec![
            ("WG", 128),
            ("CHUNK", DeltaWy::CHUNK),
            ("WIDTH", width),
            ("BLOCKS", width / 64),
            ("SLICES", width / 16),
            ("LOADS", DeltaWy::CHUNK * width / 4 / 128),
            COOP,
        ]
    }

    fn coop_only(&self) -> bool {
        true
    }

    fn lens(&self) -> Vec<u64> {
        let [wqk, u, attn] = self.local().results();
        let [state, out] = self.plain().lens()[5..] else { unreachable!() };
        vec![BATCH_WORDS, wqk, u, attn, state, out]
    }

    fn grid(&self, size: Size, caps: &Caps) -> [u32; 3] {
        caps.grid(u64::from(size.segments) * u64::from(self.heads) * u64::from(self.head_dim.div_ceil(16)))
    }

    fn cpu(&self, size: Size, bufs: &mut [Vec<u32>]) {
        let [batch, wqk, u, attn, state, out] = bufs else { unreachable!() };
        let [heads, d, width, rows] = [self.heads, self.head_dim, width(self.head_dim), self.rows].map(|n| n as usize);
        let wqk: &[Half] = bytemuck::cast_slice(wqk);
        // Part 0 is -W, part 1 is Q, part 2 is K.
        let part = |i: usize, row: usize| {
            (0..heads)
                .flat_map(move |head| wqk[((row * heads + head) * 3 + i) * width..][..d].iter().map(|x| x.to_f32()))
        };
        // V has no part in what is left to do.
        let qkv = |row: usize| part(1, row).chain(part(2, row)).chain((0..heads * d).map(|_| 0.0));
        let bits = |x: f32| x.to_bits();
        let mut plain = [
            batch.clone(),
            (0..rows).flat_map(qkv).map(bits).collect(),
            (0..rows).flat_map(|row| part(0, row)).map(|x| bits(-x)).collect(),
            u.clone(),
            bytemuck::cast_slice::<u32, Half>(attn).iter().map(|x| bits(x.to_f32())).collect(),
            std::mem::take(state),
            std::mem::take(out),
        ];
        self.plain().cpu(size, &mut plain);
        [_, _, _, _, _, *state, *out] = plain;
    }

    fn examples() -> Vec<Example<Self>> {
        let all = examples(|rows, heads, head_dim, slots, slot_len, state_at| DeltaCarry {
            rows,
            heads,
            head_dim,
            slots,
            slot_len,
            state_at,
        });
        all.into_iter().filter(|example| example.op.head_dim <= DeltaLocal::MAX_HEAD).collect()
    }

    fn input(&self, bind: usize, uniform: &mut dyn FnMut() -> f32) -> Option<Vec<u32>> {
        let [heads, d, width] = [self.heads, self.head_dim, width(self.head_dim)].map(|n| n as usize);
        let lines = self.rows as usize * heads;
        match bind {
            // Real W keeps the state from growing. Random rows of length about 1/4 do so, too.
            1 => {
                let qkv = unit_qkv(self.rows, self.heads, self.head_dim, uniform);
                let size = 0.25 * (3.0 / d as f32).sqrt();
                let mut halves = vec![Half::ZERO; lines * 3 * width];
                for (line, to) in halves.chunks_mut(3 * width).enumerate() {
                    let (row, head) = (line / heads, line % heads);
                    let part = |i: usize| &floats(&qkv)[((row * 3 + i) * heads + head) * d..][..d];
                    to[..d].iter_mut().for_each(|w| *w = half((2.0 * uniform() - 1.0) * size));
                    to[width..].iter_mut().zip(part(0)).for_each(|(to, q)| *to = half(*q));
                    to[2 * width..].iter_mut().zip(part(1)).for_each(|(to, k)| *to = half(*k));
                }
                Some(bytemuck::pod_collect_to_vec(&halves))
            }
            3 => {
                let len = lines * DeltaWy::CHUNK as usize;
                let halves: Vec<Half> = (0..len).map(|_| half(2.0 * uniform() - 1.0)).collect();
                Some(bytemuck::pod_collect_to_vec(&halves))
            }
            _ => None,
        }
    }

    fn bytes(&self, size: Size) -> Option<u64> {
        let [rows, segments, heads, d, width] =
            [size.rows, size.segments, self.heads, self.head_dim, width(self.head_dim)].map(u64::from);
        // W, Q, K and the scores as f16, U and out, and the state of each segment in and out.
        Some(heads * (rows * (6 * width + 2 * u64::from(DeltaWy::CHUNK) + 8 * d) + segments * 8 * d * d))
    }
}
