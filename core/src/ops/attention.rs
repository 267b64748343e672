//! Grouped-query causal attention for many rows (spec 3.3 steps 3 to 5).

use super::{put, row_type};
use crate::batch::{BATCH_WORDS, Batch, Size, max_tiles};
use crate::buf::Elem::{self, F16, F32, U32};
use crate::caps::Caps;
use crate::kernel::{Bind, COOP, Const, Kernel, Source, read, write};
use crate::numbers;
use crate::op::{Example, Op, floats, floats_mut};
use half::f16;
use nemoflash_shaders as wgsl;

/// The value of [`Attention::window`] for attention to all keys.
pub const NO_WINDOW: u32 = u32::MAX;

numbers! {
    /// Attention of queries, after rotary embedding, over the keys and values of their slots.
    pub struct Attention {
        /// Query heads.
        pub heads: u32,
        /// Key and value heads. Query head h uses head `h / (heads / kv_heads)`.
        pub kv_heads: u32,
        /// Number of slots in `kv`. Rows of other slots are left alone.
        pub slots: u32,
        /// The first slot in `kv`.
        pub first_slot: u32,
        /// Positions of a slot.
        pub positions: u32,
        /// A row attends to its own key and to this many keys before it. 0 stands for its own key alone, [`NO_WINDOW`]
        /// for all keys.
        pub window: u32,
        /// Scores are multiplied by this: 1 / sqrt(head_dim).
        pub scale: f32,
    } host {
        /// Rows that the buffers hold.
        pub rows: u32,
        /// Width of a head: a multiple of 8, at most 256.
        pub head_dim: u32,
        /// Whether `kv` holds f16. Otherwise it holds f32.
        pub kv_f16: bool,
        /// Whether the results are f16, divided by 16, as products with cooperative matrices take them.
        pub half: bool,
    }
}

/// (queries of a workgroup, keys that it takes at a time). With many queries each key is read less often. A GPU in
/// software gains nothing from that, and where there are few rows, few queries waste less work.
fn tile(caps: &Caps) -> (u32, u32) {
    if caps.software { (16, 16) } else { (64, 32) }
}

const fn parts(kv_f16: bool, half: bool) -> [Source; 7] {
    use Source::{Coop, Text};
    let attend = Coop(wgsl::ATTEND, wgsl::ATTEND_COOP);
    let kv = Text(if kv_f16 { wgsl::KV_F16 } else { wgsl::KV_F32 });
    let rows = row_type(half).0;
    [Text(wgsl::GRID), Text(wgsl::BATCH), Text(wgsl::TILE), kv, rows, attend, Text(wgsl::ATTENTION)]
}
const fn binds(kv_f16: bool, half: bool) -> [Bind; 4] {
    let kv = read("kv", if kv_f16 { F16 } else { F32 });
    [read("batch", U32), read("qkv", F32), kv, write("y", row_type(half).1)]
}

impl Op for Attention {
    fn kernel(&self) -> Kernel {
        const KERNELS: [(&[Source], &[Bind]); 4] = [
            (&parts(false, false), &binds(false, false)),
            (&parts(false, true), &binds(false, true)),
            (&parts(true, false), &binds(true, false)),
            (&parts(true, true), &binds(true, true)),
        ];
        let (parts, binds) = KERNELS[2 * usize::from(self.kv_f16) + usize::from(self.half)];
        Kernel { name: "attention", parts, binds }
    }

    fn consts(&self, caps: &Caps) -> Vec<Const> {
        let (queries, keys) = tile(caps);
        let mut consts = vec![
            ("QUERIES", queries),
            ("HEAD_DIM", self.head_dim),
            ("TILE_HEADS", (self.heads / self.kv_heads).min(queries)),
            ("KV_IS_F16", self.kv_f16.into()),
            ("HALF", self.half.into()),
        ];
        if self.coop(caps) {
            consts.extend([COOP, ("WG", 128), ("SLICES", self.head_dim / 16)]);
        } else {
            consts.extend([
                ("WG", queries / 4 * (keys / 2)),
                ("KEYS", keys),
                ("OUTS", (self.head_dim / 4).div_ceil(keys / 2)),
                ("STEPS", if caps.software { 1 } else { 8 }),
            ]);
        }
        consts
    }

    fn lens(&self) -> Vec<u64> {
        let row = |heads: u32| u64::from(self.rows) * u64::from(heads) * u64::from(self.head_dim);
        vec![BATCH_WORDS, row(self.heads + 2 * self.kv_heads), self.kv().len(), row(self.heads)]
    }

    fn grid(&self, size: Size, caps: &Caps) -> [u32; 3] {
        let (queries, _) = tile(caps);
        let share = self.heads / self.kv_heads;
        let heads = share.min(queries);
        let tiles = max_tiles(size, queries / heads);
        caps.grid(u64::from(tiles) * u64::from(self.kv_heads) * u64::from(share.div_ceil(heads)))
    }

    fn cpu(&self, _: Size, bufs: &mut [Vec<u32>]) {
        let [batch, qkv, kv, y] = bufs else { unreachable!() };
        let d = self.head_dim as usize;
        let (heads, kv_heads) = (self.heads as usize, self.kv_heads as usize);
        let qkv = floats(qkv);
        for (r, row) in Batch::from_words(batch).rows.iter().enumerate() {
            let oldest = row.position.saturating_sub(self.window);
            let Some(slot) = self.kv().place(row.slot) else { continue };
            for h in 0..heads {
                let query = &qkv[(r * (heads + 2 * kv_heads) + h) * d..][..d];
                let head = (h / (heads / kv_heads)) as u32;
                let (mut out, weight, _) =
                    self.kv().attend(kv, slot, head, query, self.scale, oldest..row.position + 1, None);
                out.iter_mut().for_each(|v| *v /= weight);
                out.iter().enumerate().for_each(|(i, &v)| put(y, self.half, (r * heads + h) * d + i, v));
            }
        }
    }

    fn bytes(&self, size: Size) -> Option<u64> {
        // The bytes of queries, new keys, new values and results. Older keys and values depend on the position and are
        // not counted.
        let heads = u64::from(2 * self.heads + 2 * self.kv_heads);
        Some(u64::from(size.rows) * heads * u64::from(self.head_dim) * 4)
    }

    fn examples() -> Vec<Example<Self>> {
        let case = |heads, kv_heads, head_dim: u32, window, kv_f16, segments: &[(u32, u32, u32)]| {
            let rows = segments.iter().map(|s| s.2).sum();
            let scale = (head_dim as f32).powf(-0.5);
            let (slots, first_slot, positions) = (3, 0, 200);
            let op = Attention {
                rows,
                heads,
                kv_heads,
                head_dim,
                slots,
                first_slot,
                positions,
                window,
                kv_f16,
                half: false,
                scale,
            };
            Example::segments(op, segments)
        };
        let half = |mut example: Example<Self>| {
            example.op.half = true;
            example
        };
        // `kv` holds the two middle ones of four slots.
        let between = |mut example: Example<Self>| {
            (example.op.first_slot, example.op.slots) = (1, 2);
            example
        };
        vec![
            case(4, 1, 64, NO_WINDOW, true, &[(0, 0, 1)]),
            case(3, 3, 64, 16, false, &[(1, 7, 65)]),
            case(4, 2, 32, NO_WINDOW, false, &[(2, 0, 63), (0, 130, 1)]),
            case(16, 4, 128, NO_WINDOW, true, &[(0, 5, 2), (1, 199, 1), (2, 0, 17)]),
            case(3, 1, 128, 5, false, &[(0, 100, 33)]),
            case(20, 1, 256, NO_WINDOW, true, &[(0, 9, 5)]),
            case(12, 1, 32, NO_WINDOW, true, &[(0, 0, 19)]),
            case(1, 1, 8, NO_WINDOW, false, &[(0, 0, 130)]),
            // Every row attends only to itself.
            case(4, 2, 64, 0, true, &[(0, 30, 40)]),
            between(case(4, 2, 64, NO_WINDOW, true, &[(0, 3, 2), (2, 70, 5), (3, 1, 1), (1, 0, 3)])),
            case(8, 2, 128, NO_WINDOW, true, &[(2, 120, 70), (0, 3, 1), (1, 60, 33)]),
            case(6, 2, 48, 50, true, &[(2, 150, 40)]),
            case(80, 1, 16, NO_WINDOW, true, &[(2, 90, 3), (1, 0, 2)]),
            half(case(8, 2, 128, NO_WINDOW, true, &[(2, 120, 70), (0, 3, 1)])),
            half(case(4, 2, 32, NO_WINDOW, false, &[(2, 0, 63), (0, 130, 1)])),
        ]
    }

    fn input(&self, bind: usize, uniform: &mut dyn FnMut() -> f32) -> Option<Vec<u32>> {
        // In the last slot, scores grow with the position of the key, so that a running maximum must follow.
        let line = (2 * self.kv_heads * self.head_dim) as usize;
        let mut value = |i: usize| {
            let position = i / line % self.positions as usize;
            let last = i / line / self.positions as usize + 1 == self.slots as usize;
            let key = i % line < line / 2;
            uniform() - 0.5 + if last && key { 4.0 * position as f32 / self.positions as f32 } else { 0.0 }
        };
        let len = self.lens()[bind] as usize;
        match bind {
            1 => Some((0..len).map(|_| (uniform() - 0.25).to_bits()).collect()),
            2 if self.kv_f16 => {
                let halves: Vec<f16> = (0..len).map(|i| f16::from_f32(value(i))).collect();
                Some(bytemuck::pod_collect_to_vec(&halves))
            }
            2 => Some((0..len).map(|i| value(i).to_bits()).collect()),
            _ => None,
        }
    }
}

impl Attention {
    /// Whether cooperative matrices compute it. They multiply f16, so f32 keys and values would be rounded. Heads of 256
    /// would need more registers than a thread has.
    fn coop(&self, caps: &Caps) -> bool {
        caps.coop(32 << 10) && self.kv_f16 && self.head_dim.is_multiple_of(16) && self.head_dim <= 128
    }

    fn kv(&self) -> Kv {
        kv_bind(self.kv_f16, [self.first_slot, self.slots], self.positions, self.kv_heads, self.head_dim)
    }
}

/// The buffer of keys and values, [slots, positions, k | v, kv_heads, head_dim].
pub(super) struct Kv {
    elem: Elem,
    first_slot: u32,
    slots: u32,
    positions: u32,
    kv_heads: u32,
    head_dim: u32,
}

pub(super) fn kv_bind(f16: bool, [first_slot, slots]: [u32; 2], positions: u32, kv_heads: u32, head_dim: u32) -> Kv {
    Kv { elem: if f16 { F16 } else { F32 }, first_slot, slots, positions, kv_heads, head_dim }
}

impl Kv {
    /// The index of a slot in this buffer; `None` if the slot is in another buffer.
    pub fn place(&self, slot: u32) -> Option<u32> {
        slot.checked_sub(self.first_slot).filter(|&place| place < self.slots)
    }

    pub fn len(&self) -> u64 {
        u64::from(self.slots) * u64::from(self.positions) * 2 * u64::from(self.kv_heads) * u64::from(self.head_dim)
    }

    /// The words of one head of keys (part 0) or values (part 1) at a position.
    fn range(&self, slot: u32, position: u32, part: u32, kv_head: u32) -> std::ops::Range<usize> {
        let line = ((u64::from(slot) * u64::from(self.positions) + u64::from(position)) * 2 + u64::from(part))
            * u64::from(self.kv_heads)
            + u64::from(kv_head);
        let words = self.elem.words(self.head_dim.into());
        (line * words) as usize..((line + 1) * words) as usize
    }

    pub fn put(&self, kv: &mut [u32], slot: u32, position: u32, part: u32, kv_head: u32, head: &[f32]) {
        let words = &mut kv[self.range(slot, position, part, kv_head)];
        match self.elem {
            F16 => {
                let clamp = |v: f32| f16::from_f32(v.clamp(-65504.0, 65504.0));
                let halves: &mut [f16] = bytemuck::cast_slice_mut(words);
                halves.iter_mut().zip(head).for_each(|(w, &v)| *w = clamp(v));
            }
            _ => floats_mut(words).copy_from_slice(head),
        }
    }

    fn get(&self, kv: &[u32], slot: u32, position: u32, part: u32, kv_head: u32, head: &mut [f32]) {
        let words = &kv[self.range(slot, position, part, kv_head)];
        match self.elem {
            F16 => {
                let halves: &[f16] = bytemuck::cast_slice(words);
                head.iter_mut().zip(halves).for_each(|(v, w)| *v = w.to_f32());
            }
            _ => head.copy_from_slice(floats(words)),
        }
    }

    /// (sum of weighted values, sum of weights, maximum score) of one query over a range of keys. If `new` is given,
    /// one more key and value take part.
    #[allow(clippy::too_many_arguments)]
    pub fn attend(
        &self,
        kv: &[u32],
        slot: u32,
        kv_head: u32,
        query: &[f32],
        scale: f32,
        keys: std::ops::Range<u32>,
        new: Option<[&[f32]; 2]>,
    ) -> (Vec<f32>, f32, f32) {
        let score = |key: &[f32]| query.iter().zip(key).map(|(q, k)| q * k).sum::<f32>() * scale;
        let mut head = vec![0f32; query.len()];
        let mut scores: Vec<(Option<u32>, f32)> = keys
            .map(|key| {
                self.get(kv, slot, key, 0, kv_head, &mut head);
                (Some(key), score(&head))
            })
            .collect();
        scores.extend(new.map(|[key, _]| (None, score(key))));
        let top = scores.iter().map(|(_, score)| *score).fold(f32::NEG_INFINITY, f32::max);
        let mut sum = vec![0f32; query.len()];
        let mut weight = 0f32;
        for (key, score) in scores {
            match (key, new) {
                (Some(key), _) => self.get(kv, slot, key, 1, kv_head, &mut head),
                (None, Some([_, value])) => head.copy_from_slice(value),
                (None, None) => unreachable!("only the given key has no position"),
            }
            let w = (score - top).exp();
            weight += w;
            sum.iter_mut().zip(&head).for_each(|(s, v)| *s += w * v);
        }
        (sum, weight, top)
    }
}
