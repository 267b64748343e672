//! Lengths of the vocabulary's rows, by which logits are divided (spec 3.7). Runs once per load.

use crate::batch::Size;
use crate::buf::Elem::{Bf16, F32};
use crate::caps::Caps;
use crate::kernel::{Const, Kernel, Part, read, update};
use crate::numbers;
use crate::op::{Example, Op, bf16_pair, floats_mut};
use nemoflash_shaders as wgsl;

numbers! {
    /// `y[first + r] = 1 / ||row r of table||₂`; 1 for a row of zeros. The rest of `y` is left alone, so that
    /// the parts of a split table fill one `y`.
    pub struct RowNorms {
        /// Rows of the table, or of this part of it.
        pub rows: u32,
        /// Values of a row; a multiple of 8.
        pub width: u32,
        /// Where the first row's factor goes.
        pub first: u32,
        /// Factors that `y` holds.
        pub total: u32,
    }
}

const WG: u32 = 64;

const KERNEL: Kernel = Kernel {
    name: "row_norms",
    parts: &[Part::Text(wgsl::GRID), Part::Text(wgsl::BF16), Part::Text(wgsl::ROW_NORMS)],
    binds: &[read("table", Bf16), update("y", F32)],
};

impl Op for RowNorms {
    fn kernel(&self) -> Kernel {
        KERNEL
    }

    fn consts(&self, _: &Caps) -> Vec<Const> {
        vec![("WG", WG)]
    }

    fn lens(&self) -> Vec<u64> {
        vec![u64::from(self.rows) * u64::from(self.width), self.total.into()]
    }

    fn grid(&self, _: Size, caps: &Caps) -> [u32; 3] {
        caps.grid(self.rows.div_ceil(WG).into())
    }

    fn cpu(&self, _: Size, bufs: &mut [Vec<u32>]) {
        let [table, y] = bufs else { unreachable!() };
        let rows = table.chunks(self.width as usize / 2).take(self.rows as usize);
        for (row, y) in rows.zip(&mut floats_mut(y)[self.first as usize..]) {
            let squares: f64 = row.iter().flat_map(|&w| bf16_pair(w)).map(|v| f64::from(v) * f64::from(v)).sum();
            *y = if squares > 0.0 { (1.0 / squares.sqrt()) as f32 } else { 1.0 };
        }
    }

    fn examples() -> Vec<Example<Self>> {
        let case = |rows, width, first, total| Example::rows(RowNorms { rows, width, first, total }, 1);
        vec![
            case(1, 8, 0, 1),
            case(7, 8, 3, 11),
            case(65, 504, 0, 65),
            case(3, 2048, 1, 5),
            case(127, 520, 130, 257),
            // A whole vocabulary, of short rows.
            case(131_072, 8, 1, 131_074),
        ]
    }

    fn input(&self, bind: usize, uniform: &mut dyn FnMut() -> f32) -> Option<Vec<u32>> {
        let words = u64::from(self.width / 2);
        // Row 2 is zero; the others are small random bf16 of both signs.
        let value = |u: f32| (u - 0.5).to_bits() >> 16;
        (bind == 0).then(|| {
            (0..u64::from(self.rows) * words)
                .map(|i| if i / words == 2 { 0 } else { value(uniform()) | value(uniform()) << 16 })
                .collect()
        })
    }
}
