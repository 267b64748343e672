//! Computes the lengths of the head's rows, by which logits are divided (spec 3.7). Runs once when a model is loaded.

use crate::batch::Size;
use crate::buf::Elem::{F32, Weights};
use crate::caps::Caps;
use crate::format::{Format, Quant, Scales};
use crate::kernel::{Const, Kernel, Source, read, update};
use crate::numbers;
use crate::op::{Example, Op, floats_mut};
use nemoflash_shaders as wgsl;

numbers! {
    /// `y[first + i] = 1 / ||row i of w||₂`; 1 for a row of zeros. The rest of `y` is left alone, so that all shards of
    /// the head fill one `y`.
    pub struct RowNorms {
        /// Rows of the matrix, or of this shard of it.
        pub lines: u32,
        /// Columns of the matrix: a multiple of 8, and of the group size of its format.
        pub cols: u32,
        /// Where the factor of the first row goes in `y`.
        pub first: u32,
    } host {
        /// Factors that `y` holds.
        pub total: u32,
        /// The format of the matrix.
        pub format: Format,
    }
}

const WG: u32 = 64;

const KERNEL: Kernel = Kernel {
    name: "row_norms",
    parts: &[Source::Text(wgsl::GRID), Source::Weights, Source::Text(wgsl::ROW_NORMS)],
    binds: &[read("w", Weights), update("y", F32)],
};

impl Op for RowNorms {
    fn kernel(&self) -> Kernel {
        KERNEL
    }

    fn consts(&self, _: &Caps) -> Vec<Const> {
        let mut consts = vec![("WG", WG)];
        consts.extend(self.format.consts());
        consts
    }

    fn lens(&self) -> Vec<u64> {
        vec![self.format.words(self.lines, self.cols), self.total.into()]
    }

    fn grid(&self, _: Size, caps: &Caps) -> [u32; 3] {
        caps.grid(self.lines.div_ceil(WG).into())
    }

    fn cpu(&self, _: Size, bufs: &mut [Vec<u32>]) {
        let [w, y] = bufs else { unreachable!() };
        let mut line = vec![0.0; self.cols as usize];
        for (i, y) in floats_mut(y)[self.first as usize..][..self.lines as usize].iter_mut().enumerate() {
            self.format.line(w, self.lines, i, &mut line);
            let squares: f64 = line.iter().map(|&v| f64::from(v) * f64::from(v)).sum();
            *y = if squares > 0.0 { (1.0 / squares.sqrt()) as f32 } else { 1.0 };
        }
    }

    fn examples() -> Vec<Example<Self>> {
        let case = |format: Format, lines, cols, first, total| {
            Example::rows(RowNorms { lines, cols, first, total, format }, 1)
        };
        let quant = |bits, group, scales| Format::Quant(Quant { bits, group, scales });
        vec![
            case(Format::Bf16, 1, 8, 0, 1),
            case(Format::Bf16, 7, 8, 3, 11),
            case(Format::Bf16, 65, 504, 0, 65),
            case(Format::Bf16, 3, 2048, 1, 5),
            case(Format::Bf16, 127, 520, 130, 257),
            // A whole vocabulary, with short rows.
            case(Format::Bf16, 131_072, 8, 1, 131_074),
            case(quant(4, 64, Scales::Bf16), 65, 2048, 1, 66),
            case(quant(8, 32, Scales::F16), 127, 96, 0, 127),
            case(quant(4, 32, Scales::F32), 65, 96, 1, 66),
            case(Format::F16, 65, 504, 0, 65),
            case(Format::F32, 65, 504, 0, 65),
        ]
    }

    fn input(&self, bind: usize, uniform: &mut dyn FnMut() -> f32) -> Option<Vec<u32>> {
        if bind != 0 {
            return None;
        }
        let words = u64::from(self.cols / 2);
        // Row 2 is zero. The others are small random bf16 of both signs.
        let value = |u: f32| (u - 0.5).to_bits() >> 16;
        self.format.example(self.lines, self.cols, uniform).or_else(|| {
            let lines = (0..u64::from(self.lines) * words).map(|i| i / words);
            Some(lines.map(|line| if line == 2 { 0 } else { value(uniform()) | value(uniform()) << 16 }).collect())
        })
    }
}
