//! Rotary embedding, qk norm, and the write of keys and values (spec 3.3 steps 1 and 2).

use super::attention::{Kv, kv_bind};
use crate::batch::{BATCH_WORDS, Batch, Size};
use crate::buf::Elem::{F16, F32, U32};
use crate::caps::Caps;
use crate::kernel::{Bind, Const, Kernel, Source, read, update};
use crate::numbers;
use crate::op::{Example, Op, floats, floats_mut};
use nemoflash_shaders as wgsl;

numbers! {
    /// Applies rotary embedding to queries in place and to keys, and stores keys and values in the memory of the row's
    /// slot.
    pub struct RopeKv {
        /// Query heads.
        pub heads: u32,
        /// Key and value heads.
        pub kv_heads: u32,
        /// Width of a head: a multiple of 8, at most 256.
        pub head_dim: u32,
        /// Number of slots in `kv`. Rows of other slots are left alone.
        pub slots: u32,
        /// The first slot in `kv`.
        pub first_slot: u32,
        /// Positions of a slot.
        pub positions: u32,
        /// 1 if each head of queries and keys is normalised first, else 0.
        pub qk_norm: u32,
        /// Added to the mean square of a head.
        pub eps: f32,
    } host {
        /// Rows that the buffers hold.
        pub rows: u32,
        /// Whether `kv` holds f16. Otherwise it holds f32.
        pub kv_f16: bool,
    }
}

const fn kernel(kv_lib: &'static str) -> [Source; 6] {
    use Source::Text;
    [Source::Reduce, Text(wgsl::GRID), Text(wgsl::BATCH), Text(kv_lib), Text(wgsl::ROTARY), Text(wgsl::ROPE_KV)]
}
const fn binds(kv: Bind) -> [Bind; 5] {
    [read("batch", U32), read("rotary", F32), read("norms", F32), update("qkv", F32), kv]
}

impl Op for RopeKv {
    fn kernel(&self) -> Kernel {
        const F16_PARTS: &[Source] = &kernel(wgsl::KV_F16);
        const F32_PARTS: &[Source] = &kernel(wgsl::KV_F32);
        const F16_BINDS: &[Bind] = &binds(update("kv", F16));
        const F32_BINDS: &[Bind] = &binds(update("kv", F32));
        match self.kv_f16 {
            false => Kernel { name: "rope_kv", parts: F32_PARTS, binds: F32_BINDS },
            true => Kernel { name: "rope_kv", parts: F16_PARTS, binds: F16_BINDS },
        }
    }

    fn consts(&self, caps: &Caps) -> Vec<Const> {
        let wg = (self.head_dim / 8).next_power_of_two().max(8).max(caps.subgroup.unwrap_or(1));
        vec![("WG", wg), ("KV_IS_F16", self.kv_f16.into())]
    }

    fn lens(&self) -> Vec<u64> {
        let d = u64::from(self.head_dim);
        let table = u64::from(self.positions) * d;
        let qkv = u64::from(self.rows) * u64::from(self.heads + 2 * self.kv_heads) * d;
        vec![BATCH_WORDS, table, 2 * d, qkv, self.kv().len()]
    }

    fn grid(&self, size: Size, caps: &Caps) -> [u32; 3] {
        caps.grid(u64::from(size.rows) * u64::from(self.heads + 2 * self.kv_heads))
    }

    fn cpu(&self, _: Size, bufs: &mut [Vec<u32>]) {
        let [batch, rotary, norms, qkv, kv] = bufs else { unreachable!() };
        let d = self.head_dim as usize;
        let (heads, kv_heads) = (self.heads as usize, self.kv_heads as usize);
        let stride = (heads + 2 * kv_heads) * d;
        for (r, row) in Batch::from_words(batch).rows.iter().enumerate() {
            let Some(slot) = self.kv().place(row.slot) else { continue };
            let line = &mut floats_mut(qkv)[r * stride..][..stride];
            for (h, place) in line.chunks_mut(d).enumerate() {
                let mut head = place.to_vec();
                if h < heads + kv_heads {
                    let w = (self.qk_norm == 1).then(|| &floats(norms)[if h < heads { 0 } else { d }..][..d]);
                    turn(&mut head, w, self.eps, row.position, floats(rotary));
                }
                if h < heads {
                    place.copy_from_slice(&head);
                } else {
                    let (part, kv_head) = ((h - heads) / kv_heads, (h - heads) % kv_heads);
                    self.kv().put(kv, slot, row.position, part as u32, kv_head as u32, &head);
                }
            }
        }
    }

    fn bytes(&self, size: Size) -> Option<u64> {
        // The bytes of queries, keys and values, in and out.
        let heads = u64::from(2 * self.heads + 2 * self.kv_heads);
        Some(u64::from(size.rows) * heads * u64::from(self.head_dim) * 4)
    }

    fn examples() -> Vec<Example<Self>> {
        let case = |heads, kv_heads, head_dim, qk_norm, kv_f16, segments: &[(u32, u32, u32)]| {
            let rows = segments.iter().map(|s| s.2).sum();
            let (slots, first_slot, positions, eps) = (3, 0, 200, 1e-5);
            let op = RopeKv { rows, heads, kv_heads, head_dim, slots, first_slot, positions, qk_norm, kv_f16, eps };
            Example::segments(op, segments)
        };
        // `kv` holds the two middle ones of four slots.
        let between = |mut example: Example<Self>| {
            (example.op.first_slot, example.op.slots) = (1, 2);
            example
        };
        vec![
            case(4, 1, 64, 0, true, &[(0, 0, 1)]),
            case(3, 3, 64, 1, false, &[(1, 7, 65)]),
            case(4, 2, 32, 0, false, &[(2, 0, 63), (0, 130, 1)]),
            case(16, 4, 128, 1, true, &[(0, 5, 2), (1, 199, 1), (2, 0, 3)]),
            case(2, 1, 256, 1, false, &[(0, 0, 5)]),
            between(case(4, 2, 64, 0, true, &[(0, 3, 2), (2, 70, 5), (3, 1, 1), (1, 0, 3)])),
            case(100, 20, 8, 0, true, &[(0, 0, 200), (1, 0, 200), (2, 0, 112)]),
        ]
    }

    fn input(&self, bind: usize, uniform: &mut dyn FnMut() -> f32) -> Option<Vec<u32>> {
        (bind == 1).then(|| random_rotary(self.positions, self.head_dim, uniform))
    }
}

impl RopeKv {
    fn kv(&self) -> Kv {
        kv_bind(self.kv_f16, [self.first_slot, self.slots], self.positions, self.kv_heads, self.head_dim)
    }
}

/// Normalises one head if `norm` is given, and applies rotary embedding. `rotary` is [positions, head_dim / 8, cos |
/// sin, 4].
pub(super) fn turn(head: &mut [f32], norm: Option<&[f32]>, eps: f32, position: u32, rotary: &[f32]) {
    if let Some(w) = norm {
        let normed = super::matvec::normed(head, w, eps);
        head.copy_from_slice(&normed);
    }
    let half = head.len() / 2;
    let table = &rotary[position as usize * head.len()..][..head.len()];
    for j in 0..half {
        let (cos, sin) = (table[j / 4 * 8 + j % 4], table[j / 4 * 8 + 4 + j % 4]);
        let (low, high) = (head[j], head[j + half]);
        head[j] = low * cos - high * sin;
        head[j + half] = high * cos + low * sin;
    }
}

/// A table of random angles for examples.
pub(super) fn random_rotary(positions: u32, head_dim: u32, uniform: &mut dyn FnMut() -> f32) -> Vec<u32> {
    let mut table = vec![0f32; (positions * head_dim) as usize];
    for eight in table.chunks_mut(8) {
        for j in 0..4 {
            let angle = uniform() * std::f32::consts::TAU;
            eight[j] = angle.cos();
            eight[j + 4] = angle.sin();
        }
    }
    bytemuck::cast_vec(table)
}
