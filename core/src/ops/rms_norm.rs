//! RMSNorm over rows (spec 3.2), or over heads if each head is a row (spec 3.5 step 8).

use crate::batch::Size;
use crate::buf::Elem::F32;
use crate::caps::Caps;
use crate::kernel::{Const, Kernel, Source, read, write};
use crate::numbers;
use crate::op::{Example, Op, floats, floats_mut};
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
    }
}

const KERNEL: Kernel = Kernel {
    name: "rms_norm",
    parts: &[Source::Reduce, Source::Text(wgsl::GRID), Source::Text(wgsl::RMS_NORM)],
    binds: &[read("x", F32), read("w", F32), write("y", F32)],
};

impl Op for RmsNorm {
    fn kernel(&self) -> Kernel {
        KERNEL
    }

    fn consts(&self, _: &Caps) -> Vec<Const> {
        // About eight values per thread.
        vec![("WG", if self.width < 1024 { 64 } else { 256 })]
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
        let (x, w, y) = (floats(x), floats(w), floats_mut(y));
        for (x, y) in x.chunks(width).zip(y.chunks_mut(width)).take(rows) {
            let squares: f64 = x.iter().map(|&v| f64::from(v) * f64::from(v)).sum();
            let scale = 1.0 / (squares / f64::from(self.width) + f64::from(self.eps)).sqrt();
            for ((y, &x), &w) in y.iter_mut().zip(x).zip(w) {
                *y = (f64::from(x) * scale) as f32 * w;
            }
        }
    }

    fn examples() -> Vec<Example<Self>> {
        let case = |rows: u32, per_row: u32, width| {
            Example::rows(RmsNorm { rows: rows * per_row, width, per_row, eps: 1e-6 }, rows)
        };
        // 66,000 rows are more than the 65,535 workgroups of one grid dimension.
        vec![case(1, 1, 4), case(3, 1, 60), case(5, 1, 384), case(130, 1, 68), case(7, 3, 64), case(500, 132, 8)]
    }
}
