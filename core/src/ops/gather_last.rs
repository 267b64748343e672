//! The rows that need logits: the last one of every segment (spec 3.1 step 5).

use crate::batch::{BATCH_WORDS, Batch, Size};
use crate::buf::Elem::{F32, U32};
use crate::caps::Caps;
use crate::kernel::{Const, Kernel, Source, read, write};
use crate::numbers;
use crate::op::{Example, Op};
use nemoflash_shaders as wgsl;

numbers! {
    /// `y[s] = x[last row of segment s]`.
    pub struct GatherLast {
        /// Rows that `x` holds.
        pub rows: u32,
        /// Rows that `y` holds: the most segments of a step.
        pub segments: u32,
        /// Values in a row.
        pub width: u32,
    }
}

const WG: u32 = 128;

const KERNEL: Kernel = Kernel {
    name: "gather_last",
    parts: &[Source::Text(wgsl::BATCH), Source::Text(wgsl::GATHER_LAST)],
    binds: &[read("batch", U32), read("x", F32), write("y", F32)],
};

impl Op for GatherLast {
    fn kernel(&self) -> Kernel {
        KERNEL
    }

    fn consts(&self, _: &Caps) -> Vec<Const> {
        vec![("WG", WG)]
    }

    fn lens(&self) -> Vec<u64> {
        let [rows, segments, width] = [self.rows, self.segments, self.width].map(u64::from);
        vec![BATCH_WORDS, rows * width, segments * width]
    }

    fn grid(&self, size: Size, caps: &Caps) -> [u32; 3] {
        caps.grid(size.segments.into())
    }

    fn cpu(&self, size: Size, bufs: &mut [Vec<u32>]) {
        let [batch, x, y] = bufs else { unreachable!() };
        let width = self.width as usize;
        let batch = Batch::from_words(batch);
        for (segment, y) in batch.segments.iter().zip(y.chunks_mut(width)).take(size.segments as usize) {
            let last = (segment.first + segment.rows - 1) as usize;
            y.copy_from_slice(&x[last * width..][..width]);
        }
    }

    fn examples() -> Vec<Example<Self>> {
        let case = |rows, width, list: &[_]| {
            Example::segments(GatherLast { rows, segments: list.len() as u32, width }, list)
        };
        let singles: Vec<_> = (0..17).map(|slot| (slot, 3 * slot, 1)).collect();
        vec![
            case(1, 1, &[(0, 0, 1)]),
            case(512, 63, &[(4, 100, 1), (0, 0, 127), (2, 9, 2), (7, 256, 1)]),
            case(17, 384, &singles),
            case(65, 2048, &[(1, 0, 64), (0, 5, 1)]),
        ]
    }

    fn bytes(&self, size: Size) -> Option<u64> {
        Some(u64::from(size.segments) * u64::from(self.width) * 8)
    }
}
