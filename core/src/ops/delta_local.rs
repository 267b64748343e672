//! The chunked delta rule with cooperative matrices, first half: computes what does not depend on the state (spec 3.5, WY
//! form).

use super::delta_serial::{examples, unit_qkv};
use super::{DeltaWy, Half, half};
use crate::batch::{BATCH_WORDS, Batch, Size, max_tiles};
use crate::buf::Elem::{F16, F32, U32};
use crate::caps::Caps;
use crate::kernel::{COOP, Const, Kernel, Source, read, write};
use crate::numbers;
use crate::op::{Example, Op, floats, floats_mut};
use nemoflash_shaders as wgsl;

numbers! {
    /// Computes the same as [`DeltaWy`], for [`DeltaCarry`](super::DeltaCarry), with f16 products and f32 sums.
    ///
    /// Bindings: `batch`, `qkv` [rows, 3, heads, head_dim] with unit q and k, `beta` [rows, heads], `wqk` as f16 [rows, heads,
    /// -W | Q | K, width], where the width is head_dim rounded up to 64 and the columns past head_dim are 0, `u` [rows, heads,
    /// head_dim], `attn` as f16 [rows, heads, CHUNK].
    pub struct DeltaLocal {
        /// Heads.
        pub heads: u32,
        /// Values of one q, k or v of a head, a multiple of 4, at most [`DeltaLocal::MAX_HEAD`].
        pub head_dim: u32,
    } host {
        /// Rows of the step.
        pub rows: u32,
    }
}

/// Columns of W, Q and K in `wqk`.
pub(super) fn width(head_dim: u32) -> u32 {
    head_dim.next_multiple_of(64)
}

const KERNEL: Kernel = Kernel {
    name: "delta_local",
    parts: &[
        Source::Text(wgsl::GRID),
        Source::Text(wgsl::BATCH),
        Source::Text(wgsl::TILE),
        Source::Text(wgsl::SOLVE),
        Source::Text(wgsl::DELTA_LOCAL),
    ],
    binds: &[
        read("batch", U32),
        read("qkv", F32),
        read("beta", F32),
        write("wqk", F16),
        write("u", F32),
        write("attn", F16),
    ],
};

impl DeltaLocal {
    /// The widest head whose state fits into registers and workgroup memory.
    pub const MAX_HEAD: u32 = 128;

    /// Elements of (`wqk`, `u`, `attn`).
    pub fn results(&self) -> [u64; 3] {
        let lines = u64::from(self.rows) * u64::from(self.heads);
        [3 * width(self.head_dim), self.head_dim, DeltaWy::CHUNK].map(|row| lines * u64::from(row))
    }
}

impl Op for DeltaLocal {
    fn kernel(&self) -> Kernel {
        KERNEL
    }

    fn consts(&self, _: &Caps) -> Vec<Const> {
        vec![("WG", 128), ("CHUNK", DeltaWy::CHUNK), ("PARTS", width(self.head_dim) / 64), COOP]
    }

    fn coop_only(&self) -> bool {
        true
    }

    fn lens(&self) -> Vec<u64> {
        let [rows, heads] = [self.rows, self.heads].map(u64::from);
        let [wqk, u, attn] = self.results();
        vec![BATCH_WORDS, 3 * rows * heads * u64::from(self.head_dim), rows * heads, wqk, u, attn]
    }

    fn grid(&self, size: Size, caps: &Caps) -> [u32; 3] {
        caps.grid(u64::from(max_tiles(size, DeltaWy::CHUNK)) * u64::from(self.heads))
    }

    fn cpu(&self, size: Size, bufs: &mut [Vec<u32>]) {
        let [batch, qkv, beta, wqk, u, attn] = bufs else { unreachable!() };
        let [heads, d, width, chunk] =
            [self.heads, self.head_dim, width(self.head_dim), DeltaWy::CHUNK].map(|n| n as usize);
        let lines = self.rows as usize * heads;
        let mut plain =
            [batch.clone(), qkv.clone(), beta.clone(), vec![0; lines * d], vec![0; lines * d], vec![0; lines * chunk]];
        DeltaWy { heads: self.heads, head_dim: self.head_dim, rows: self.rows }.cpu(size, &mut plain);
        let [_, _, _, w, plain_u, plain_attn] = plain;
        let wqk: &mut [Half] = bytemuck::cast_slice_mut(wqk);
        let attn: &mut [Half] = bytemuck::cast_slice_mut(attn);
        let u = floats_mut(u);
        let (w, qkv) = (floats(&w), floats(qkv));
        for row in 0..Batch::from_words(batch).rows.len() {
            for head in 0..heads {
                let at = row * heads + head;
                let part = |i: usize| &qkv[((row * 3 + i) * heads + head) * d..][..d];
                let negative: Vec<f32> = w[at * d..][..d].iter().map(|w| -w).collect();
                for (to, from) in wqk[at * 3 * width..].chunks_mut(width).zip([&negative, part(0), part(1)]) {
                    to.iter_mut().enumerate().for_each(|(i, to)| *to = half(from.get(i).copied().unwrap_or(0.0)));
                }
                u[at * d..][..d].copy_from_slice(&floats(&plain_u)[at * d..][..d]);
                let scores = &floats(&plain_attn)[at * chunk..][..chunk];
                attn[at * chunk..][..chunk].iter_mut().zip(scores).for_each(|(to, from)| *to = half(*from));
            }
        }
    }

    fn examples() -> Vec<Example<Self>> {
        let all = examples(|rows, heads, head_dim, _, _, _| DeltaLocal { rows, heads, head_dim });
        all.into_iter().filter(|example| example.op.head_dim <= Self::MAX_HEAD).collect()
    }

    fn input(&self, bind: usize, uniform: &mut dyn FnMut() -> f32) -> Option<Vec<u32>> {
        match bind {
            1 => Some(unit_qkv(self.rows, self.heads, self.head_dim, uniform)),
            2 => Some((0..self.rows * self.heads).map(|_| uniform().to_bits()).collect()),
            _ => None,
        }
    }
}
