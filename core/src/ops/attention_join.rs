//! Joins the splits of [`AttentionStep`](super::AttentionStep).

use crate::batch::Size;
use crate::buf::Elem::F32;
use crate::caps::Caps;
use crate::kernel::{Const, Kernel, Source, read, write};
use crate::numbers;
use crate::op::{Example, Op, floats, floats_mut};
use nemoflash_shaders as wgsl;

numbers! {
    /// `y` = the sum of all splits' results, rescaled to their common maximum, divided by the sum of their weights.
    pub struct AttentionJoin {
        /// Rows that the buffers hold.
        pub rows: u32,
        /// Query heads.
        pub heads: u32,
        /// Splits of the keys.
        pub splits: u32,
    } host {
        /// Width of a head.
        pub head_dim: u32,
    }
}

/// The most threads of a workgroup, unless one thread for each four-vector of a head is more.
const THREADS: u32 = 256;
/// The most splits that a thread reads at a time.
const AT_ONCE: u32 = 8;

const KERNEL: Kernel = Kernel {
    name: "attention_join",
    parts: &[Source::Text(wgsl::GRID), Source::Text(wgsl::ATTENTION_JOIN)],
    binds: &[read("parts", F32), read("weights", F32), write("y", F32)],
};

impl Op for AttentionJoin {
    fn kernel(&self) -> Kernel {
        KERNEL
    }

    fn consts(&self, caps: &Caps) -> Vec<Const> {
        let quads = self.head_dim / 4;
        // On a GPU in software, few threads and a short text to compile are best (see `AttentionStep`).
        let software = caps.software;
        let teams = if software { 1 } else { (THREADS / quads).min(self.splits) };
        let at_once = if software { 1 } else { self.splits.div_ceil(teams).min(AT_ONCE) };
        vec![
            ("WG", teams * quads),
            ("QUADS", quads),
            ("TEAMS", teams),
            ("ALONE", (teams == 1).into()),
            ("TOGETHER", (teams > 1).into()),
            ("AT_ONCE", at_once),
        ]
    }

    fn lens(&self) -> Vec<u64> {
        let heads = u64::from(self.rows) * u64::from(self.heads);
        let (splits, d) = (u64::from(self.splits), u64::from(self.head_dim));
        vec![heads * splits * d, heads * splits * 2, heads * d]
    }

    fn grid(&self, size: Size, caps: &Caps) -> [u32; 3] {
        caps.grid(u64::from(size.rows) * u64::from(self.heads))
    }

    fn cpu(&self, size: Size, bufs: &mut [Vec<u32>]) {
        let [parts, weights, y] = bufs else { unreachable!() };
        let (d, splits) = (self.head_dim as usize, self.splits as usize);
        let (parts, weights, y) = (floats(parts), floats(weights), floats_mut(y));
        for head in 0..(size.rows * self.heads) as usize {
            let filled: Vec<usize> =
                (head * splits..(head + 1) * splits).filter(|s| weights[2 * s + 1] > 0.0).collect();
            let top = filled.iter().map(|s| weights[2 * s]).fold(f32::NEG_INFINITY, f32::max);
            let total: f32 = filled.iter().map(|s| weights[2 * s + 1] * (weights[2 * s] - top).exp2()).sum();
            for j in 0..d {
                let sum: f32 = filled.iter().map(|s| parts[s * d + j] * (weights[2 * s] - top).exp2()).sum();
                y[head * d + j] = sum / total;
            }
        }
    }

    fn examples() -> Vec<Example<Self>> {
        let case = |rows, heads, head_dim, splits| {
            Example::rows(AttentionJoin { rows, heads, head_dim, splits }, rows)
        };
        vec![case(1, 4, 64, 32), case(3, 3, 8, 2), case(8, 16, 128, 4), case(1, 2, 256, 64), case(2, 3, 40, 61)]
    }

    fn input(&self, bind: usize, uniform: &mut dyn FnMut() -> f32) -> Option<Vec<u32>> {
        // The maxima differ from split to split. Every third split is empty: its weight is zero and its sum was never
        // written.
        let splits = (self.rows * self.heads * self.splits) as usize;
        let value = |s: usize, v: f32, empty: f32| if s % 3 == 2 { empty } else { v };
        match bind {
            0 => {
                let d = self.head_dim as usize;
                Some((0..splits * d).map(|i| value(i / d, uniform() - 0.5, f32::NAN).to_bits()).collect())
            }
            1 => {
                let both = |s| [value(s, uniform() * 9.0 - 4.0, 0.0), value(s, uniform() + 0.5, 0.0)];
                Some((0..splits).flat_map(both).map(f32::to_bits).collect())
            }
            _ => None,
        }
    }
}
