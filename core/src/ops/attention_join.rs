//! Joins the splits of [`AttentionStep`](super::AttentionStep).

use crate::batch::Size;
use crate::buf::Elem::F32;
use crate::caps::Caps;
use crate::kernel::{Const, Kernel, Part, read, write};
use crate::numbers;
use crate::op::{Example, Op, floats, floats_mut};
use nemoflash_shaders as wgsl;

numbers! {
    /// `y` = the splits' sums under their common maximum, over their total weight.
    pub struct AttentionJoin {
        /// Rows that the buffers hold.
        pub rows: u32,
        /// Query heads.
        pub heads: u32,
        /// Width of a head.
        pub head_dim: u32,
        /// Splits of the keys.
        pub splits: u32,
    }
}

const WG: u32 = 64;

const KERNEL: Kernel = Kernel {
    name: "attention_join",
    parts: &[Part::Text(wgsl::GRID), Part::Text(wgsl::ATTENTION_JOIN)],
    binds: &[read("parts", F32), read("weights", F32), write("y", F32)],
};

impl Op for AttentionJoin {
    fn kernel(&self) -> Kernel {
        KERNEL
    }

    fn consts(&self, _: &Caps) -> Vec<Const> {
        vec![("WG", WG)]
    }

    fn lens(&self) -> Vec<u64> {
        let heads = u64::from(self.rows) * u64::from(self.heads);
        let (splits, d) = (u64::from(self.splits), u64::from(self.head_dim));
        vec![heads * splits * d, heads * splits * 2, heads * d]
    }

    fn grid(&self, size: Size, caps: &Caps) -> [u32; 3] {
        let quads = u64::from(size.rows) * u64::from(self.heads) * u64::from(self.head_dim) / 4;
        caps.grid(quads.div_ceil(u64::from(WG)))
    }

    fn cpu(&self, size: Size, bufs: &mut [Vec<u32>]) {
        let [parts, weights, y] = bufs else { unreachable!() };
        let (d, splits) = (self.head_dim as usize, self.splits as usize);
        let (parts, weights, y) = (floats(parts), floats(weights), floats_mut(y));
        for head in 0..(size.rows * self.heads) as usize {
            let filled: Vec<usize> =
                (head * splits..(head + 1) * splits).filter(|s| weights[2 * s + 1] > 0.0).collect();
            let top = filled.iter().map(|s| weights[2 * s]).fold(f32::NEG_INFINITY, f32::max);
            let total: f32 = filled.iter().map(|s| weights[2 * s + 1] * (weights[2 * s] - top).exp()).sum();
            for j in 0..d {
                let sum: f32 = filled.iter().map(|s| parts[s * d + j] * (weights[2 * s] - top).exp()).sum();
                y[head * d + j] = sum / total;
            }
        }
    }

    fn examples() -> Vec<Example<Self>> {
        let case = |rows, heads, head_dim, splits| {
            Example::rows(AttentionJoin { rows, heads, head_dim, splits }, rows)
        };
        vec![case(1, 4, 64, 32), case(3, 3, 8, 2), case(8, 16, 128, 4)]
    }

    fn input(&self, bind: usize, uniform: &mut dyn FnMut() -> f32) -> Option<Vec<u32>> {
        // Maxima of some spread; every third split is empty: sum and weight zero.
        let splits = (self.rows * self.heads * self.splits) as usize;
        let value = |s: usize, v: f32| if s % 3 == 2 { 0.0 } else { v };
        match bind {
            0 => {
                let d = self.head_dim as usize;
                Some((0..splits * d).map(|i| value(i / d, uniform() - 0.5).to_bits()).collect())
            }
            1 => Some(
                (0..splits).flat_map(|s| [value(s, uniform() * 9.0 - 4.0), value(s, uniform() + 0.5)]).map(f32::to_bits).collect(),
            ),
            _ => None,
        }
    }
}
