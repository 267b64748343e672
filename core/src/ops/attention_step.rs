//! One decode step of attention in one dispatch, over a fixed number of splits (design: decode budget).

use super::attention::{Kv, kv_bind, tile};
use super::rope_kv::{random_rotary, turn};
use crate::batch::{BATCH_WORDS, Batch, Size};
use crate::buf::Elem::{F16, F32, U32};
use crate::caps::Caps;
use crate::kernel::{Bind, Const, Kernel, Part, read, update, write};
use crate::numbers;
use crate::op::{Example, Op, floats, floats_mut};
use nemoflash_shaders as wgsl;

numbers! {
    /// qk norm, rotary embedding, the write of the new key and value, and attention over each split's keys.
    /// Every row is a segment of its own. At most 8 (4 past head_dim 128) query heads share a KV head.
    pub struct AttentionStep {
        /// Rows that the buffers hold.
        pub rows: u32,
        /// Query heads.
        pub heads: u32,
        /// Key and value heads.
        pub kv_heads: u32,
        /// Width of a head; a multiple of 8, at most 256.
        pub head_dim: u32,
        /// Slots of `kv`.
        pub slots: u32,
        /// Positions of a slot.
        pub positions: u32,
        /// Keys at most this many steps back are seen; 0 for all.
        pub window: u32,
        /// 1: queries and keys are normalised per head first.
        pub qk_norm: u32,
        /// 1: `kv` holds f16, 0: f32.
        pub kv_f16: u32,
        /// Splits of the keys; 1 gives the finished result.
        pub splits: u32,
        /// Scores are multiplied by this: 1 / sqrt(head_dim).
        pub scale: f32,
        /// Added to the mean square of a head.
        pub eps: f32,
    }
}

const fn parts(kv_lib: &'static str) -> [Part; 6] {
    use Part::Text;
    [
        Text(wgsl::GRID),
        Text(wgsl::BATCH),
        Text(kv_lib),
        Text(wgsl::ROTARY),
        Text(wgsl::ATTEND),
        Text(wgsl::ATTENTION_STEP),
    ]
}
const fn binds(kv: Bind) -> [Bind; 7] {
    [
        read("batch", U32),
        read("rotary", F32),
        read("norms", F32),
        read("qkv", F32),
        kv,
        write("y", F32),
        update("weights", F32),
    ]
}

impl Op for AttentionStep {
    fn kernel(&self) -> Kernel {
        const F16_PARTS: &[Part] = &parts(wgsl::KV_F16);
        const F32_PARTS: &[Part] = &parts(wgsl::KV_F32);
        const F16_BINDS: &[Bind] = &binds(update("kv", F16));
        const F32_BINDS: &[Bind] = &binds(update("kv", F32));
        match self.kv_f16 {
            0 => Kernel { name: "attention_step", parts: F32_PARTS, binds: F32_BINDS },
            _ => Kernel { name: "attention_step", parts: F16_PARTS, binds: F16_BINDS },
        }
    }

    fn consts(&self, _: &Caps) -> Vec<Const> {
        let (queries, keys) = tile(self.head_dim);
        vec![
            ("WG", queries * keys),
            ("QUERIES", queries),
            ("KEYS", keys),
            ("HEAD_DIM", self.head_dim),
            ("TILE_HEADS", self.heads / self.kv_heads),
            ("SPLITS", self.splits),
            ("KV_IS_F16", self.kv_f16),
        ]
    }

    fn lens(&self) -> Vec<u64> {
        let (rows, d) = (u64::from(self.rows), u64::from(self.head_dim));
        let parts = rows * u64::from(self.heads) * u64::from(self.splits);
        vec![
            BATCH_WORDS,
            u64::from(self.positions) * d,
            2 * d,
            rows * u64::from(self.heads + 2 * self.kv_heads) * d,
            self.kv().len(),
            parts * d,
            parts * 2,
        ]
    }

    fn grid(&self, size: Size, caps: &Caps) -> [u32; 3] {
        caps.grid(u64::from(size.rows) * u64::from(self.kv_heads) * u64::from(self.splits))
    }

    fn cpu(&self, _: Size, bufs: &mut [Vec<u32>]) {
        let [batch, rotary, norms, qkv, kv, y, weights] = bufs else { unreachable!() };
        let d = self.head_dim as usize;
        let (heads, kv_heads, splits) = (self.heads as usize, self.kv_heads as usize, self.splits as usize);
        let keys = tile(self.head_dim).1;
        for (r, row) in Batch::from_words(batch).rows.iter().enumerate() {
            let mut line = floats(qkv)[r * (heads + 2 * kv_heads) * d..][..(heads + 2 * kv_heads) * d].to_vec();
            for (h, head) in line.chunks_mut(d).enumerate() {
                if h < heads + kv_heads {
                    let w = (self.qk_norm == 1).then(|| &floats(norms)[if h < heads { 0 } else { d }..][..d]);
                    turn(head, w, self.eps, row.position, floats(rotary));
                }
                if h >= heads {
                    let (part, kv_head) = ((h - heads) / kv_heads, (h - heads) % kv_heads);
                    self.kv().put(kv, row.slot, row.position, part as u32, kv_head as u32, head);
                }
            }
            let end = row.position + 1;
            let oldest = if self.window == 0 { 0 } else { row.position.saturating_sub(self.window) };
            // A split takes whole tiles of keys.
            let per_split = (end - oldest).div_ceil(keys).div_ceil(self.splits) * keys;
            for h in 0..heads {
                let head = (h / (heads / kv_heads)) as u32;
                for s in 0..splits {
                    let from = (oldest + s as u32 * per_split).min(end);
                    let range = from..(from + per_split).min(end);
                    let empty = range.is_empty();
                    let (mut out, weight, top) =
                        self.kv().attend(kv, row.slot, head, &line[h * d..][..d], self.scale, range);
                    let at = (r * heads + h) * splits + s;
                    if splits == 1 {
                        out.iter_mut().for_each(|v| *v /= weight);
                    } else {
                        floats_mut(weights)[2 * at] = if empty { 0.0 } else { top };
                        floats_mut(weights)[2 * at + 1] = weight;
                    }
                    floats_mut(y)[at * d..][..d].copy_from_slice(&out);
                }
            }
        }
    }

    fn bytes(&self, size: Size) -> Option<u64> {
        // What the rows bring and take; the keys and values that they see depend on the position.
        let heads = u64::from(2 * self.heads + 2 * self.kv_heads);
        Some(u64::from(size.rows) * heads * u64::from(self.head_dim) * 4)
    }

    fn examples() -> Vec<Example<Self>> {
        let case = |heads, kv_heads, head_dim: u32, window, flags: [u32; 3], rows: &[(u32, u32, u32)]| {
            let [qk_norm, kv_f16, splits] = flags;
            let scale = (head_dim as f32).powf(-0.5);
            let op = AttentionStep {
                rows: rows.len() as u32,
                heads,
                kv_heads,
                head_dim,
                slots: 3,
                positions: 400,
                window,
                qk_norm,
                kv_f16,
                splits,
                scale,
                eps: 1e-5,
            };
            Example::segments(op, rows)
        };
        vec![
            case(4, 1, 64, 0, [0, 1, 1], &[(0, 0, 1)]),
            case(4, 1, 64, 0, [0, 1, 8], &[(1, 399, 1), (0, 15, 1), (2, 16, 1)]),
            case(3, 3, 64, 16, [1, 0, 4], &[(1, 71, 1), (2, 3, 1)]),
            case(16, 4, 128, 0, [0, 1, 32], &[(0, 130, 1)]),
            case(8, 1, 32, 0, [1, 0, 2], &[(2, 63, 1)]),
            case(4, 1, 256, 0, [1, 1, 4], &[(0, 64, 1)]),
        ]
    }

    fn input(&self, bind: usize, uniform: &mut dyn FnMut() -> f32) -> Option<Vec<u32>> {
        (bind == 1).then(|| random_rotary(self.positions, self.head_dim, uniform))
    }
}

impl AttentionStep {
    fn kv(&self) -> Kv {
        kv_bind(self.kv_f16, self.slots, self.positions, self.kv_heads, self.head_dim)
    }
}
