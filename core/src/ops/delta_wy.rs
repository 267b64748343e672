//! The chunked delta rule, first half: computes what does not depend on the state, for all chunks (spec 3.5, WY form).

use super::delta_serial::{examples, unit_qkv};
use crate::batch::{BATCH_WORDS, Batch, Size, max_tiles, tiles};
use crate::buf::Elem::{F32, U32};
use crate::caps::Caps;
use crate::kernel::{Const, Kernel, Source, read, write};
use crate::numbers;
use crate::op::{Example, Op, floats, floats_mut};
use nemoflash_shaders as wgsl;

numbers! {
    /// For each chunk of [`DeltaWy::CHUNK`] rows of a segment and each head, with `A = strictly lower (diag(beta) K Kᵀ)`
    /// and `T = (I + A)⁻¹ diag(beta)`: `W = T K`, `U = T V` and the scores `lower (Q Kᵀ)`, diagonal included.
    ///
    /// Bindings: `batch`, `qkv` [rows, 3, heads, head_dim] with unit q and k, `beta` [rows, heads], `w` and `u`
    /// [rows, heads, head_dim], `attn` [rows, heads, CHUNK].
    pub struct DeltaWy {
        /// Heads.
        pub heads: u32,
        /// Values of one q, k or v of a head, a multiple of 4.
        pub head_dim: u32,
    } host {
        /// Rows the buffers hold.
        pub rows: u32,
    }
}

impl DeltaWy {
    /// Rows of a chunk, and columns of `attn`. The reference uses 64; the result does not depend on it. With 32, all
    /// matrices of a chunk fit into the 16 KiB of workgroup memory that every device has.
    pub const CHUNK: u32 = 32;
}

const KERNEL: Kernel = Kernel {
    name: "delta_wy",
    parts: &[
        Source::Text(wgsl::GRID),
        Source::Text(wgsl::BATCH),
        Source::Text(wgsl::TILE),
        Source::Text(wgsl::OUTER),
        Source::Text(wgsl::SOLVE),
        Source::Text(wgsl::DELTA_WY),
    ],
    binds: &[
        read("batch", U32),
        read("qkv", F32),
        read("beta", F32),
        write("w", F32),
        write("u", F32),
        write("attn", F32),
    ],
};

impl Op for DeltaWy {
    fn kernel(&self) -> Kernel {
        KERNEL
    }

    fn consts(&self, _: &Caps) -> Vec<Const> {
        // One thread for each 4 x 4 block of the chunk's square matrices.
        vec![("WG", (Self::CHUNK / 4).pow(2)), ("CHUNK", Self::CHUNK)]
    }

    fn lens(&self) -> Vec<u64> {
        let [rows, heads] = [self.rows, self.heads].map(u64::from);
        let width = rows * heads * u64::from(self.head_dim);
        vec![BATCH_WORDS, 3 * width, rows * heads, width, width, rows * heads * u64::from(Self::CHUNK)]
    }

    fn grid(&self, size: Size, caps: &Caps) -> [u32; 3] {
        caps.grid(u64::from(max_tiles(size, Self::CHUNK)) * u64::from(self.heads))
    }

    fn cpu(&self, size: Size, bufs: &mut [Vec<u32>]) {
        let [batch, qkv, beta, w, u, attn] = bufs else { unreachable!() };
        let mut batch = Batch::from_words(batch);
        batch.segments.truncate(size.segments as usize);
        let (qkv, beta) = (floats(qkv), floats(beta));
        let (w, u, attn) = (floats_mut(w), floats_mut(u), floats_mut(attn));
        let [heads, d, chunk] = [self.heads, self.head_dim, Self::CHUNK].map(|n| n as usize);
        for (_, first, rows) in tiles(&batch, Self::CHUNK) {
            let (first, rows) = (first as usize, rows as usize);
            for head in 0..heads {
                let part = |i: usize, row: usize| &qkv[(((first + row) * 3 + i) * heads + head) * d..][..d];
                let dot =
                    |a: &[f32], b: &[f32]| -> f64 { a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum() };
                // Solves (I + A) [W U] = diag(beta) [K V] row by row.
                let mut solved: Vec<Vec<f64>> = Vec::with_capacity(rows);
                for i in 0..rows {
                    let (q, k) = (part(0, i), part(1, i));
                    let b = f64::from(beta[(first + i) * heads + head]);
                    let mut x: Vec<f64> = k.iter().chain(part(2, i)).map(|&x| b * f64::from(x)).collect();
                    for (j, earlier) in solved.iter().enumerate() {
                        let a = b * dot(k, part(1, j));
                        x.iter_mut().zip(earlier).for_each(|(x, e)| *x -= a * e);
                    }
                    let at = (first + i) * heads + head;
                    for c in 0..d {
                        w[at * d + c] = x[c] as f32;
                        u[at * d + c] = x[d + c] as f32;
                    }
                    for j in 0..chunk {
                        attn[at * chunk + j] = if j <= i { dot(q, part(1, j)) as f32 } else { 0.0 };
                    }
                    solved.push(x);
                }
            }
        }
    }

    fn examples() -> Vec<Example<Self>> {
        examples(|rows, heads, head_dim, _, _, _| DeltaWy { rows, heads, head_dim })
    }

    fn input(&self, bind: usize, uniform: &mut dyn FnMut() -> f32) -> Option<Vec<u32>> {
        match bind {
            1 => Some(unit_qkv(self.rows, self.heads, self.head_dim, uniform)),
            2 => Some((0..self.rows * self.heads).map(|_| uniform().to_bits()).collect()),
            _ => None,
        }
    }
}
