//! Embedding of tokens and meta tokens (spec 3.1).

use crate::batch::{BATCH_WORDS, Batch, PICKED, Size};
use crate::buf::Elem::{F32, U32, Weights};
use crate::caps::Caps;
use crate::format::{Format, Quant, Scales};
use crate::kernel::{Const, Kernel, Source, read, update};
use crate::numbers;
use crate::op::{Example, Op, floats_mut};
use nemoflash_shaders as wgsl;

numbers! {
    /// `x[row] = w[token - first]` for rows whose token is in `first .. first + lines`. Other rows are left alone. If
    /// the token of a row is [`PICKED`], `picked[row.slot]` is taken instead.
    ///
    /// Each shard of the table is one step, and so are the meta tokens, whose ids follow the vocabulary. Together these
    /// steps fill `x`.
    pub struct Embed {
        /// Rows that `x` holds.
        pub rows: u32,
        /// Columns of the table; a multiple of 8, and of the format's group.
        pub cols: u32,
        /// The token of the first row of the table.
        pub first: u32,
        /// Rows of the table.
        pub lines: u32,
    } host {
        /// Slots of `picked`.
        pub slots: u32,
        /// The format of the table.
        pub format: Format,
    }
}

const WG: u32 = 128;

const KERNEL: Kernel = Kernel {
    name: "embed",
    parts: &[Source::Text(wgsl::BATCH), Source::Weights, Source::Text(wgsl::EMBED)],
    binds: &[read("batch", U32), read("picked", U32), read("w", Weights), update("x", F32)],
};

impl Op for Embed {
    fn kernel(&self) -> Kernel {
        KERNEL
    }

    fn consts(&self, _: &Caps) -> Vec<Const> {
        let mut consts = vec![("WG", WG)];
        consts.extend(self.format.consts());
        consts
    }

    fn lens(&self) -> Vec<u64> {
        let table = self.format.words(self.lines, self.cols);
        vec![BATCH_WORDS, self.slots.into(), table, u64::from(self.rows) * u64::from(self.cols)]
    }

    fn grid(&self, size: Size, caps: &Caps) -> [u32; 3] {
        caps.grid(size.rows.into())
    }

    fn cpu(&self, size: Size, bufs: &mut [Vec<u32>]) {
        let [batch, picked, w, x] = bufs else { unreachable!() };
        let batch = Batch::from_words(batch);
        for (row, x) in batch.rows.iter().zip(floats_mut(x).chunks_mut(self.cols as usize)).take(size.rows as usize) {
            let token = if row.token == PICKED { picked[row.slot as usize] } else { row.token };
            let Some(line) = token.checked_sub(self.first).filter(|&line| line < self.lines) else { continue };
            self.format.line(w, self.lines, line as usize, x);
        }
    }

    fn examples() -> Vec<Example<Self>> {
        let case = |format: Format, rows, cols, first, lines, segments: &[(u32, &[u32])]| {
            let mut batch = Batch::default();
            for &(slot, tokens) in segments {
                batch.push(slot, 7 * slot, tokens, true);
            }
            Example { op: Embed { rows, cols, first, lines, slots: 8, format }, batch }
        };
        let quant = |bits, group, scales| Format::Quant(Quant { bits, group, scales });
        let tokens: Vec<u32> = (0..130).map(|i| i * 37 % 101).collect();
        vec![
            case(Format::Bf16, 1, 8, 0, 1, &[(0, &[0])]),
            case(Format::Bf16, 1, 2048, 0, 13, &[(5, &[PICKED])]),
            // Tokens below, in and above the shard, at its edges, and picked tokens of two slots.
            case(Format::Bf16, 9, 72, 10, 5, &[(3, &[9, 10, 14, 15]), (0, &[PICKED]), (6, &[PICKED, 0, 12])]),
            // Meta tokens alone. Tokens of text are left to another step.
            case(Format::Bf16, 7, 384, 100, 3, &[(1, &[100, 101, 102, 5, 99])]),
            case(Format::Bf16, 130, 1032, 0, 101, &[(2, &tokens)]),
            case(quant(4, 32, Scales::Bf16), 3, 96, 10, 5, &[(3, &[9, 10, 14])]),
            case(quant(4, 64, Scales::Bf16), 1, 2048, 0, 13, &[(5, &[PICKED])]),
            case(quant(8, 128, Scales::F16), 130, 1152, 0, 101, &[(2, &tokens)]),
            case(quant(8, 16, Scales::F32), 3, 80, 10, 5, &[(3, &[9, 10, 14])]),
            case(Format::F16, 3, 72, 10, 5, &[(3, &[9, 10, 14])]),
            case(Format::F32, 3, 72, 10, 5, &[(3, &[9, 10, 14])]),
        ]
    }

    fn input(&self, bind: usize, uniform: &mut dyn FnMut() -> f32) -> Option<Vec<u32>> {
        if bind == 2 {
            return self.format.example(self.lines, self.cols, uniform);
        }
        // Every second slot has picked a token of this table.
        let token = |i: u32, u: f32| self.first + (u * self.lines as f32) as u32 + u32::from(i.is_multiple_of(2)) * self.lines;
        (bind == 1).then(|| (0..self.slots).map(|i| token(i, uniform())).collect())
    }

    fn bytes(&self, size: Size) -> Option<u64> {
        let line = self.format.words(1, self.cols) * 4;
        Some(u64::from(size.rows) * (line + u64::from(self.cols) * 4))
    }
}
