//! The activation of an FFN for many rows (spec 3.6).

use super::{most_threads, put, row_type};
use crate::batch::Size;
use crate::buf::Elem::F32;
use crate::caps::Caps;
use crate::kernel::{Bind, Const, Kernel, Source, read, write};
use crate::numbers;
use crate::op::{Example, Op, floats};
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
    } host {
        /// Whether the results are f16, divided by 16, as products with cooperative matrices take them.
        pub half: bool,
    }
}

const fn parts(half: bool) -> [Source; 3] {
    [Source::Text(wgsl::GRID), row_type(half).0, Source::Text(wgsl::FFN_ACT)]
}
const fn binds(half: bool) -> [Bind; 2] {
    [read("h", F32), write("y", row_type(half).1)]
}

impl Op for FfnAct {
    fn kernel(&self) -> Kernel {
        const KERNELS: [(&[Source], &[Bind]); 2] = [(&parts(false), &binds(false)), (&parts(true), &binds(true))];
        let (parts, binds) = KERNELS[usize::from(self.half)];
        Kernel { name: "ffn_act", parts, binds }
    }

    fn consts(&self, caps: &Caps) -> Vec<Const> {
        vec![("WG", most_threads(caps)), ("HALF", self.half.into())]
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
        let h = floats(h);
        let width = self.width as usize;
        let parts = 1 + self.gated as usize;
        for (row, h) in h.chunks(width * parts).enumerate().take(size.rows as usize) {
            for i in 0..width {
                let value = match self.gated {
                    0 => h[i].max(0.0).powi(2),
                    _ => super::silu(h[i]) * h[width + i],
                };
                put(y, self.half, row * width + i, value);
            }
        }
    }

    fn examples() -> Vec<Example<Self>> {
        let case = |rows, width, gated| Example::rows(FfnAct { rows, width, gated, half: false }, rows);
        let half = |mut example: Example<Self>| {
            example.op.half = true;
            example
        };
        vec![
            case(1, 4, 1),
            case(3, 60, 1),
            case(65, 128, 0),
            case(130, 68, 1),
            case(500, 840, 0),
            half(case(33, 60, 1)),
            half(case(9, 128, 0)),
        ]
    }
}
