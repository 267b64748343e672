//! Embedding of tokens and meta tokens (spec 3.1).

use crate::batch::{BATCH_WORDS, Batch, PICKED, Size};
use crate::buf::Elem::{Bf16, F32, U32};
use crate::caps::Caps;
use crate::kernel::{Const, Kernel, Part, read, update};
use crate::numbers;
use crate::op::{Example, Op, bf16_pair, floats_mut};
use nemoflash_shaders as wgsl;

numbers! {
    /// `x[row] = table[token - first]` for rows whose token is in `first .. first + count`; other rows are
    /// left alone. A row's token [`PICKED`] stands for `picked[row.slot]`.
    ///
    /// The parts of a table that is split by rows, and the meta tokens as one more part behind the
    /// vocabulary, are one step each and fill one `x` between them.
    pub struct Embed {
        /// Rows that `x` holds.
        pub rows: u32,
        /// Values of a row; a multiple of 8.
        pub width: u32,
        /// The token of the table's first row.
        pub first: u32,
        /// Rows of the table.
        pub count: u32,
        /// Slots of `picked`.
        pub slots: u32,
    }
}

const WG: u32 = 128;

const KERNEL: Kernel = Kernel {
    name: "embed",
    parts: &[Part::Text(wgsl::BATCH), Part::Text(wgsl::BF16), Part::Text(wgsl::EMBED)],
    binds: &[read("batch", U32), read("picked", U32), read("table", Bf16), update("x", F32)],
};

impl Op for Embed {
    fn kernel(&self) -> Kernel {
        KERNEL
    }

    fn consts(&self, _: &Caps) -> Vec<Const> {
        vec![("WG", WG)]
    }

    fn lens(&self) -> Vec<u64> {
        let width = u64::from(self.width);
        vec![BATCH_WORDS, self.slots.into(), u64::from(self.count) * width, u64::from(self.rows) * width]
    }

    fn grid(&self, size: Size, caps: &Caps) -> [u32; 3] {
        caps.grid(size.rows.into())
    }

    fn cpu(&self, size: Size, bufs: &mut [Vec<u32>]) {
        let [batch, picked, table, x] = bufs else { unreachable!() };
        let width = self.width as usize;
        let batch = Batch::from_words(batch);
        for (row, x) in batch.rows.iter().zip(floats_mut(x).chunks_mut(width)).take(size.rows as usize) {
            let token = if row.token == PICKED { picked[row.slot as usize] } else { row.token };
            let Some(at) = token.checked_sub(self.first).filter(|&at| at < self.count) else { continue };
            let start = at as usize * width / 2;
            for (x, &word) in x.chunks_mut(2).zip(&table[start..start + width / 2]) {
                x.copy_from_slice(&bf16_pair(word));
            }
        }
    }

    fn examples() -> Vec<Example<Self>> {
        let case = |rows, width, first, count, segments: &[(u32, &[u32])]| {
            let mut batch = Batch::default();
            for &(slot, tokens) in segments {
                batch.push(slot, 7 * slot, tokens, true);
            }
            Example { op: Embed { rows, width, first, count, slots: 8 }, batch }
        };
        let tokens: Vec<u32> = (0..130).map(|i| i * 37 % 101).collect();
        vec![
            case(1, 8, 0, 1, &[(0, &[0])]),
            case(1, 2048, 0, 13, &[(5, &[PICKED])]),
            // Tokens below, in and above a part, at its edges, and picked ones of two slots.
            case(9, 72, 10, 5, &[(3, &[9, 10, 14, 15]), (0, &[PICKED]), (6, &[PICKED, 0, 12])]),
            // Meta tokens alone: text tokens are left to another step.
            case(7, 384, 100, 3, &[(1, &[100, 101, 102, 5, 99])]),
            case(130, 1032, 0, 101, &[(2, &tokens)]),
        ]
    }

    fn input(&self, bind: usize, uniform: &mut dyn FnMut() -> f32) -> Option<Vec<u32>> {
        // One slot in two has picked a token of this table.
        let token = |i: u32, u: f32| self.first + (u * self.count as f32) as u32 + u32::from(i.is_multiple_of(2)) * self.count;
        (bind == 1).then(|| (0..self.slots).map(|i| token(i, uniform())).collect())
    }

    fn bytes(&self, size: Size) -> Option<u64> {
        Some(u64::from(size.rows) * u64::from(self.width) * 6)
    }
}
