//! Mamba2's gated RMSNorm (spec 3.4 step 6).

use super::conv1d::silu;
use crate::batch::Size;
use crate::buf::Elem::F32;
use crate::caps::Caps;
use crate::kernel::{Const, Kernel, Source, read, write};
use crate::numbers;
use crate::op::{Example, Op, floats, floats_mut};
use nemoflash_shaders as wgsl;

numbers! {
    /// `g = y ⊙ silu(z)`, `out = g / sqrt(mean(g²) + eps) ⊙ w`. The gate comes before the norm, and the mean is over
    /// the whole width. `z` is columns `z_offset..z_offset + width` of `p`.
    pub struct GatedNorm {
        /// Rows the buffers hold.
        pub rows: u32,
        /// Values in a row of `y`: `d_inner`.
        pub width: u32,
        /// Values in a row of `p`.
        pub z_stride: u32,
        /// Column of `p` where `z` begins.
        pub z_offset: u32,
        /// Added to the mean square: 1e-5 in every published model.
        pub eps: f32,
    }
}

const WG: u32 = 256;

const KERNEL: Kernel = Kernel {
    name: "gated_norm",
    parts: &[Source::Reduce, Source::Text(wgsl::GRID), Source::Text(wgsl::SILU), Source::Text(wgsl::GATED_NORM)],
    binds: &[read("y", F32), read("p", F32), read("w", F32), write("out", F32)],
};

impl Op for GatedNorm {
    fn kernel(&self) -> Kernel {
        KERNEL
    }

    fn consts(&self, _: &Caps) -> Vec<Const> {
        vec![("WG", WG)]
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
        let (y, p, w, out) = (floats(y), floats(p), floats(w), floats_mut(out));
        for row in 0..size.rows as usize {
            let y = &y[row * width..][..width];
            let z = &p[row * z_stride + z_offset..][..width];
            let gated: Vec<f64> = y.iter().zip(z).map(|(&y, &z)| f64::from(y) * silu(z.into())).collect();
            let squares: f64 = gated.iter().map(|g| g * g).sum();
            let scale = 1.0 / (squares / width as f64 + f64::from(self.eps)).sqrt();
            for ((out, g), &w) in out[row * width..].iter_mut().zip(gated).zip(w) {
                *out = (g * scale * f64::from(w)) as f32;
            }
        }
    }

    fn examples() -> Vec<Example<Self>> {
        let case = |rows, width, before, after| {
            let z_stride = before + width + after;
            Example::rows(GatedNorm { rows, width, z_stride, z_offset: before, eps: 1e-5 }, rows)
        };
        vec![case(1, 1, 0, 0), case(2, 63, 1, 0), case(3, 4096, 0, 259), case(130, 65, 0, 7), case(5, 384, 2, 1)]
    }

    fn bytes(&self, size: Size) -> Option<u64> {
        Some(4 * u64::from(self.width) * (3 * u64::from(size.rows) + 1))
    }
}
