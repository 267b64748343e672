//! Mamba2's gated RMSNorm (spec 3.4 step 6).

use super::conv1d::silu;
use super::{put, row_type};
use crate::batch::Size;
use crate::buf::Elem::F32;
use crate::caps::Caps;
use crate::kernel::{Bind, Const, Kernel, Source, read, write};
use crate::numbers;
use crate::op::{Example, Op, floats};
use nemoflash_shaders as wgsl;

numbers! {
    /// `g = y ⊙ silu(z)`, `out = g / sqrt(mean(g²) + eps) ⊙ w`. The gate comes before the norm, and the mean is over
    /// the whole width. `z` is columns `z_offset..z_offset + width` of `p`.
    pub struct GatedNorm {
        /// Rows the buffers hold.
        pub rows: u32,
        /// Values in a row of `y`, a multiple of 4: `d_inner`.
        pub width: u32,
        /// Values in a row of `p`.
        pub z_stride: u32,
        /// Column of `p` where `z` begins.
        pub z_offset: u32,
        /// Added to the mean square: 1e-5 in every published model.
        pub eps: f32,
    } host {
        /// Whether the results are f16, divided by 16, as products with cooperative matrices take them.
        pub half: bool,
    }
}

const WG: u32 = 256;

const fn parts(half: bool) -> [Source; 5] {
    use Source::{Reduce, Text};
    [Reduce, Text(wgsl::GRID), Text(wgsl::SILU), row_type(half).0, Text(wgsl::GATED_NORM)]
}
const fn binds(half: bool) -> [Bind; 4] {
    [read("y", F32), read("p", F32), read("w", F32), write("out", row_type(half).1)]
}

impl Op for GatedNorm {
    fn kernel(&self) -> Kernel {
        const KERNELS: [(&[Source], &[Bind]); 2] = [(&parts(false), &binds(false)), (&parts(true), &binds(true))];
        let (parts, binds) = KERNELS[usize::from(self.half)];
        Kernel { name: "gated_norm", parts, binds }
    }

    fn consts(&self, _: &Caps) -> Vec<Const> {
        vec![("WG", WG), ("HALF", self.half.into())]
    }

    fn lens(&self) -> Vec<u64> {
        let [rows, width, z_stride] = [self.rows, self.width, self.z_stride].map(u64::from);
        vec![rows * width, rows * z_stride, width, rows * width]
    }

    fn grid(&self, size: Size, caps: &Caps) -> [u32; 3] {
        caps.grid(size.rows.into())
    }

    fn cpu(&self, size: Size, bufs: &mut [Vec<u32>]) {
        let [y, p, w, out] = bufs else { unreachable!() };
        let [width, z_stride, z_offset] = [self.width, self.z_stride, self.z_offset].map(|n| n as usize);
        let (y, p, w) = (floats(y), floats(p), floats(w));
        for row in 0..size.rows as usize {
            let y = &y[row * width..][..width];
            let z = &p[row * z_stride + z_offset..][..width];
            let gated: Vec<f64> = y.iter().zip(z).map(|(&y, &z)| f64::from(y) * silu(z.into())).collect();
            let squares: f64 = gated.iter().map(|g| g * g).sum();
            let scale = 1.0 / (squares / width as f64 + f64::from(self.eps)).sqrt();
            for (i, (g, &w)) in gated.into_iter().zip(w).enumerate() {
                put(out, self.half, row * width + i, (g * scale * f64::from(w)) as f32);
            }
        }
    }

    fn examples() -> Vec<Example<Self>> {
        let case = |rows, width, before, after| {
            let z_stride = before + width + after;
            Example::rows(GatedNorm { rows, width, z_stride, z_offset: before, eps: 1e-5, half: false }, rows)
        };
        let half = |mut example: Example<Self>| {
            example.op.half = true;
            example
        };
        vec![
            case(1, 4, 0, 0),
            case(2, 60, 1, 0),
            case(3, 4096, 0, 259),
            case(130, 68, 0, 7),
            case(5, 384, 2, 1),
            half(case(3, 4096, 0, 259)),
            half(case(9, 60, 1, 2)),
        ]
    }

    fn bytes(&self, size: Size) -> Option<u64> {
        let row = if self.half { 10 } else { 12 };
        Some(u64::from(self.width) * (row * u64::from(size.rows) + 4))
    }
}
