//! RMSNorm over rows (spec 3.2), or over heads if each head is a row (spec 3.5 step 8).

use super::{put, row_type};
use crate::batch::Size;
use crate::buf::Elem::F32;
use crate::caps::Caps;
use crate::kernel::{Bind, Const, Kernel, Source, read, write};
use crate::numbers;
use crate::op::{Example, Op, floats};
use nemoflash_shaders as wgsl;

numbers! {
    /// `y = x / sqrt(mean(x²) + eps) ⊙ w`, with the mean over `width` values.
    pub struct RmsNorm {
        /// Rows the buffers hold.
        pub rows: u32,
        /// Values that are normalised together, a multiple of 4.
        pub width: u32,
        /// Added to the mean square.
        pub eps: f32,
    } host {
        /// Rows of this operator per row of the batch: 1, or the number of heads.
        pub per_row: u32,
        /// Whether the results are f16, divided by 16, as products with cooperative matrices take them.
        pub half: bool,
    }
}

const fn parts(half: bool) -> [Source; 4] {
    [Source::Reduce, Source::Text(wgsl::GRID), row_type(half).0, Source::Text(wgsl::RMS_NORM)]
}
const fn binds(half: bool) -> [Bind; 3] {
    [read("x", F32), read("w", F32), write("y", row_type(half).1)]
}

impl Op for RmsNorm {
    fn kernel(&self) -> Kernel {
        const KERNELS: [(&[Source], &[Bind]); 2] = [(&parts(false), &binds(false)), (&parts(true), &binds(true))];
        let (parts, binds) = KERNELS[usize::from(self.half)];
        Kernel { name: "rms_norm", parts, binds }
    }

    fn consts(&self, _: &Caps) -> Vec<Const> {
        // About eight values per thread.
        vec![("WG", if self.width < 1024 { 64 } else { 256 }), ("HALF", self.half.into())]
    }

    fn lens(&self) -> Vec<u64> {
        let all = u64::from(self.rows) * u64::from(self.width);
        vec![all, self.width.into(), all]
    }

    fn grid(&self, size: Size, caps: &Caps) -> [u32; 3] {
        caps.grid(u64::from(size.rows) * u64::from(self.per_row))
    }

    fn cpu(&self, size: Size, bufs: &mut [Vec<u32>]) {
        let [x, w, y] = bufs else { unreachable!() };
        let width = self.width as usize;
        let rows = (size.rows * self.per_row) as usize;
        let (x, w) = (floats(x), floats(w));
        for (row, x) in x.chunks(width).enumerate().take(rows) {
            let squares: f64 = x.iter().map(|&v| f64::from(v) * f64::from(v)).sum();
            let scale = 1.0 / (squares / f64::from(self.width) + f64::from(self.eps)).sqrt();
            for (i, (&x, &w)) in x.iter().zip(w).enumerate() {
                put(y, self.half, row * width + i, (f64::from(x) * scale) as f32 * w);
            }
        }
    }

    fn examples() -> Vec<Example<Self>> {
        let case = |rows: u32, per_row: u32, width| {
            Example::rows(RmsNorm { rows: rows * per_row, width, per_row, eps: 1e-6, half: false }, rows)
        };
        let half = |mut example: Example<Self>| {
            example.op.half = true;
            example
        };
        // 66,000 rows are more than the 65,535 workgroups of one grid dimension.
        vec![
            case(1, 1, 4),
            case(3, 1, 60),
            case(5, 1, 384),
            case(130, 1, 68),
            case(7, 3, 64),
            case(500, 132, 8),
            half(case(9, 1, 2048)),
            half(case(7, 3, 64)),
        ]
    }
}
