//! The activation of an FFN for many rows (spec 3.6).

use super::most_threads;
use crate::batch::Size;
use crate::buf::Elem::F32;
use crate::caps::Caps;
use crate::kernel::{Const, Kernel, Source, read, write};
use crate::numbers;
use crate::op::{Example, Op, floats, floats_mut};
use nemoflash_shaders as wgsl;

numbers! {
    /// `y = silu(gate) ⊙ up`, or `relu(up)²` if there is no gate.
    pub struct FfnAct {
        /// Rows that the buffers hold.
        pub rows: u32,
        /// Width of the FFN, a multiple of 4.
        pub width: u32,
        /// 1 if a row of `h` is gate | up, 0 if it is up alone.
        pub gated: u32,
    }
}

const KERNEL: Kernel = Kernel {
    name: "ffn_act",
    parts: &[Source::Text(wgsl::GRID), Source::Text(wgsl::FFN_ACT)],
    binds: &[read("h", F32), write("y", F32)],
};

impl Op for FfnAct {
    fn kernel(&self) -> Kernel {
        KERNEL
    }

    fn consts(&self, caps: &Caps) -> Vec<Const> {
        vec![("WG", most_threads(caps))]
    }

    fn lens(&self) -> Vec<u64> {
        let all = u64::from(self.rows) * u64::from(self.width);
        vec![all * (1 + u64::from(self.gated)), all]
    }

    fn grid(&self, size: Size, caps: &Caps) -> [u32; 3] {
        caps.grid((u64::from(size.rows) * u64::from(self.width / 4)).div_ceil(most_threads(caps).into()))
    }

    fn cpu(&self, size: Size, bufs: &mut [Vec<u32>]) {
        let [h, y] = bufs else { unreachable!() };
        let (h, y) = (floats(h), floats_mut(y));
        let width = self.width as usize;
        let parts = 1 + self.gated as usize;
        for (h, y) in h.chunks(width * parts).zip(y.chunks_mut(width)).take(size.rows as usize) {
            for i in 0..width {
                y[i] = match self.gated {
                    0 => h[i].max(0.0).powi(2),
                    _ => super::silu(h[i]) * h[width + i],
                };
            }
        }
    }

    fn examples() -> Vec<Example<Self>> {
        let case = |rows, width, gated| Example::rows(FfnAct { rows, width, gated }, rows);
        vec![case(1, 4, 1), case(3, 60, 1), case(65, 128, 0), case(130, 68, 1), case(500, 840, 0)]
    }
}
