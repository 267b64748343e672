//! One decode step of attention in one dispatch, with a fixed number of splits of the keys.

use super::attention::{Kv, NO_WINDOW, kv_bind};
use super::rope_kv::{random_rotary, turn};
use crate::batch::{BATCH_WORDS, Batch, Size};
use crate::buf::Elem::{F16, F32, U32};
use crate::caps::Caps;
use crate::kernel::{Bind, Const, Kernel, Source, read, update, write};
use crate::numbers;
use crate::op::{Example, Op, floats, floats_mut};
use nemoflash_shaders as wgsl;
use std::f32::consts::LOG2_E;

numbers! {
    /// For each row: qk norm, rotary embedding, the write of the new key and value, and attention over the keys of each
    /// split. Every row is a segment of its own. At most 8 query heads (4 if head_dim is above 128) share a KV head,
    /// see [`fits_step`].
    pub struct AttentionStep {
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
        /// As in [`Attention`](super::Attention): 0 for the row's own key alone, [`NO_WINDOW`] for all keys.
        pub window: u32,
        /// 1 if each head of queries and keys is normalised first, else 0.
        pub qk_norm: u32,
        /// Scores are multiplied by this: 1 / sqrt(head_dim).
        pub scale: f32,
        /// Added to the mean square of a head.
        pub eps: f32,
    } host {
        /// Rows that the buffers hold.
        pub rows: u32,
        /// Whether `kv` holds f16. Otherwise it holds f32.
        pub kv_f16: bool,
        /// Splits of the keys. With 1 split the result is complete.
        pub splits: u32,
    }
}

/// The fewest keys of a split. With fewer keys, the fixed cost of a split would exceed the work that it takes over.
const LEAST: u32 = 32;

const fn parts(kv_lib: &'static str) -> [Source; 6] {
    use Source::Text;
    [
        Source::Team,
        Text(wgsl::GRID),
        Text(wgsl::BATCH),
        Text(kv_lib),
        Text(wgsl::ROTARY),
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
        write("weights", F32),
    ]
}

impl Op for AttentionStep {
    fn kernel(&self) -> Kernel {
        const F16_PARTS: &[Source] = &parts(wgsl::KV_F16);
        const F32_PARTS: &[Source] = &parts(wgsl::KV_F32);
        const F16_BINDS: &[Bind] = &binds(update("kv", F16));
        const F32_BINDS: &[Bind] = &binds(update("kv", F32));
        match self.kv_f16 {
            false => Kernel { name: "attention_step", parts: F32_PARTS, binds: F32_BINDS },
            true => Kernel { name: "attention_step", parts: F16_PARTS, binds: F16_BINDS },
        }
    }

    fn consts(&self, caps: &Caps) -> Vec<Const> {
        let mut consts = Shape::new(self.head_dim, self.heads / self.kv_heads, caps).consts();
        consts.extend([("SPLITS", self.splits), ("LEAST", LEAST), ("KV_IS_F16", self.kv_f16.into())]);
        consts
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
            if self.splits == 1 { 0 } else { parts * 2 },
        ]
    }

    fn grid(&self, size: Size, caps: &Caps) -> [u32; 3] {
        caps.grid(u64::from(size.rows) * u64::from(self.kv_heads) * u64::from(self.splits))
    }

    fn cpu(&self, _: Size, bufs: &mut [Vec<u32>]) {
        let [batch, rotary, norms, qkv, kv, y, weights] = bufs else { unreachable!() };
        let d = self.head_dim as usize;
        let (heads, kv_heads, splits) = (self.heads as usize, self.kv_heads as usize, self.splits as usize);
        for (r, row) in Batch::from_words(batch).rows.iter().enumerate() {
            let Some(slot) = self.kv().place(row.slot) else { continue };
            let mut line = floats(qkv)[r * (heads + 2 * kv_heads) * d..][..(heads + 2 * kv_heads) * d].to_vec();
            for (h, head) in line.chunks_mut(d).enumerate() {
                if h < heads + kv_heads {
                    let w = (self.qk_norm == 1).then(|| &floats(norms)[if h < heads { 0 } else { d }..][..d]);
                    turn(head, w, self.eps, row.position, floats(rotary));
                }
                if h >= heads {
                    let (part, kv_head) = ((h - heads) / kv_heads, (h - heads) % kv_heads);
                    self.kv().put(kv, slot, row.position, part as u32, kv_head as u32, head);
                }
            }
            let oldest = row.position.saturating_sub(self.window);
            let per_split = (row.position - oldest).div_ceil(self.splits).max(LEAST);
            for h in 0..heads {
                let head = (h / (heads / kv_heads)) as u32;
                for s in 0..splits {
                    let from = (oldest + s as u32 * per_split).min(row.position);
                    let keys = from..(from + per_split).min(row.position);
                    // The first split also has the new key and value, before they are rounded to f16.
                    let of = |h: usize| &line[h * d..][..d];
                    let kv_head = head as usize;
                    let new = (s == 0).then(|| [of(heads + kv_head), of(heads + kv_heads + kv_head)]);
                    let at = (r * heads + h) * splits + s;
                    if keys.is_empty() && new.is_none() {
                        floats_mut(weights)[2 * at..][..2].fill(0.0);
                        continue;
                    }
                    let (mut out, weight, top) =
                        self.kv().attend(kv, slot, head, of(h), self.scale, keys, new);
                    if splits == 1 {
                        out.iter_mut().for_each(|v| *v /= weight);
                    } else {
                        floats_mut(weights)[2 * at..][..2].copy_from_slice(&[top * LOG2_E, weight]);
                    }
                    floats_mut(y)[at * d..][..d].copy_from_slice(&out);
                }
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
        let case = |[heads, kv_heads, head_dim]: [u32; 3], window, (qk_norm, kv_f16, splits), rows: &[(u32, u32)]| {
            let scale = (head_dim as f32).powf(-0.5);
            let op = AttentionStep {
                rows: rows.len() as u32,
                heads,
                kv_heads,
                head_dim,
                slots: 3,
                first_slot: 0,
                positions: 400,
                window,
                qk_norm,
                kv_f16,
                splits,
                scale,
                eps: 1e-5,
            };
            let segments: Vec<_> = rows.iter().map(|&(slot, position)| (slot, position, 1)).collect();
            Example::segments(op, &segments)
        };
        // `kv` holds the two middle ones of four slots.
        let between = |mut example: Example<Self>| {
            (example.op.first_slot, example.op.slots) = (1, 2);
            example
        };
        vec![
            case([4, 1, 64], NO_WINDOW, (0, true, 1), &[(0, 0)]),
            case([4, 1, 64], NO_WINDOW, (0, true, 8), &[(1, 399), (0, 32), (2, 33)]),
            case([3, 3, 64], 40, (1, false, 4), &[(1, 171), (2, 3)]),
            case([16, 4, 128], NO_WINDOW, (0, true, 64), &[(0, 130)]),
            case([16, 8, 128], NO_WINDOW, (1, true, 2), &[(1, 0), (2, 398)]),
            case([8, 1, 128], NO_WINDOW, (0, false, 3), &[(2, 300)]),
            case([8, 1, 32], NO_WINDOW, (1, false, 2), &[(2, 63)]),
            case([4, 1, 256], NO_WINDOW, (1, true, 4), &[(0, 64)]),
            // Heads whose length is not a multiple of the lanes.
            case([10, 2, 40], 200, (1, true, 6), &[(1, 350), (0, 1)]),
            case([7, 1, 72], NO_WINDOW, (1, false, 1), &[(1, 77)]),
            // Every row attends only to itself.
            case([4, 2, 64], 0, (0, true, 4), &[(1, 399), (2, 0)]),
            // With so few values, a single wrong rounding to f16 would be seen.
            case([1, 1, 8], NO_WINDOW, (1, false, 13), &[(1, 399)]),
            between(case([4, 2, 64], NO_WINDOW, (0, true, 4), &[(3, 70), (2, 399), (0, 5), (1, 34)])),
        ]
    }

    fn input(&self, bind: usize, uniform: &mut dyn FnMut() -> f32) -> Option<Vec<u32>> {
        (bind == 1).then(|| random_rotary(self.positions, self.head_dim, uniform))
    }
}

impl AttentionStep {
    fn kv(&self) -> Kv {
        kv_bind(self.kv_f16, [self.first_slot, self.slots], self.positions, self.kv_heads, self.head_dim)
    }
}

/// The most query heads that may share a KV head. More queries would not fit into registers.
fn most_queries(head_dim: u32) -> u32 {
    if head_dim <= 128 { 8 } else { 4 }
}

/// Whether [`AttentionStep`] can compute these heads.
pub fn fits_step(heads: u32, kv_heads: u32, head_dim: u32) -> bool {
    heads / kv_heads <= most_queries(head_dim)
}

/// How a workgroup divides its work, see `attention_step.wgsl`.
struct Shape {
    head_dim: u32,
    queries: u32,
    /// Threads of a team, which share a head.
    lanes: u32,
    teams: u32,
    /// Keys that a team takes at a time.
    keys: u32,
    /// Queries whose sums are merged over the teams at a time.
    merged: u32,
    subgroup: Option<u32>,
}

impl Shape {
    /// Lanes of a team, if head_dim and registers allow it. With fewer lanes a sum takes fewer steps.
    const LANES: u32 = 16;
    /// The most four-vectors of queries that a thread holds. It holds as many four-vectors of sums.
    const HELD: u32 = 8;
    /// Threads of a workgroup.
    const THREADS: u32 = 256;
    /// Four-vectors of keys that a thread loads at a time. It loads as many of values.
    const LOADS: u32 = 4;

    fn new(head_dim: u32, queries: u32, caps: &Caps) -> Shape {
        let quads = head_dim / 4;
        // A GPU in software uses the CPU's vectors as subgroups of 4 or 8. One subgroup per workgroup and a short text
        // to compile are best there.
        let software = caps.software;
        let most = quads.next_power_of_two().min(caps.subgroup.unwrap_or(32));
        let mut lanes = most.min(Self::LANES);
        while lanes < most && queries * quads.div_ceil(lanes) > Self::HELD {
            lanes *= 2;
        }
        let share = quads.div_ceil(lanes);
        let (teams, keys) = match software {
            true => (1, 1),
            false => (Self::THREADS.min(caps.max_invocations) / lanes, (Self::LOADS / share).max(1)),
        };
        let mut shape = Shape { head_dim, queries, lanes, teams, keys, merged: queries, subgroup: caps.subgroup };
        // What does not fit into workgroup memory is divided into smaller portions.
        while shape.workgroup_bytes() > Caps::FLOOR.workgroup_bytes {
            match shape {
                Shape { merged: 2.., .. } => shape.merged -= 1,
                Shape { keys: 2.., .. } => shape.keys /= 2,
                _ => shape.teams /= 2,
            }
        }
        shape
    }

    fn workgroup_bytes(&self) -> u32 {
        let sums = if self.subgroup.is_none() { self.keys * self.queries * self.lanes * self.teams * 4 } else { 0 };
        self.room() * 16 + (self.teams + 1) * self.queries * 8 + sums
    }

    /// Number of four-vectors of workgroup memory that hold the prepared heads, and later the sums of the teams.
    fn room(&self) -> u32 {
        let quads = self.head_dim / 4;
        quads * (self.queries + 2).max(self.teams * self.merged)
    }

    fn consts(&self) -> Vec<Const> {
        let quads = self.head_dim / 4;
        vec![
            ("WG", self.lanes * self.teams),
            ("LANES", self.lanes),
            ("HALVINGS", self.lanes.ilog2()),
            ("TEAMS", self.teams),
            ("ALONE", (self.teams == 1).into()),
            ("TOGETHER", (self.teams > 1).into()),
            ("KEYS", self.keys),
            ("QUERIES", self.queries),
            ("VALUES", self.keys * self.queries),
            ("HEAD_DIM", self.head_dim),
            ("SHARE", quads.div_ceil(self.lanes)),
            ("PAIRS", (quads / 2).div_ceil(self.lanes)),
            ("ROOM", self.room()),
            ("MERGED", self.merged),
        ]
    }
}
