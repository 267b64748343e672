//! Random words for the matrices of models without a checkpoint.

use crate::batch::Size;
use crate::buf::Elem::Weights;
use crate::caps::Caps;
use crate::kernel::{Const, Kernel, Source, update};
use crate::numbers;
use crate::op::{Example, Op};
use nemoflash_shaders as wgsl;

numbers! {
    /// `w[at + i]` = word `first + i` of the seed's random stream, for `words` words. The rest of `w` is left alone.
    ///
    /// A word is two bf16. Each is a 16-bit integer, from -32768 on, times `step`, truncated to bf16. The arithmetic is
    /// exact up to that truncation, so the numbers are the same on every device.
    pub struct RandomWeights {
        /// Where the first word goes in `w`.
        pub at: u32,
        /// Number of words to write.
        pub words: u32,
        /// Index of the first word in the stream.
        pub first: u32,
        /// The seed of the stream.
        pub seed: u32,
        /// Distance of neighbouring numbers. Unused if `raw` is 1.
        pub step: f32,
        /// 1 writes the random bits themselves, for integers. 0 writes bf16.
        pub raw: u32,
    }
}

const WG: u32 = 256;

const KERNEL: Kernel = Kernel {
    name: "random_weights",
    parts: &[Source::Text(wgsl::GRID), Source::Text(wgsl::RANDOM_WEIGHTS)],
    binds: &[update("w", Weights)],
};

fn hash(value: u32) -> u32 {
    let state = value.wrapping_mul(747_796_405).wrapping_add(2_891_336_453);
    let word = ((state >> ((state >> 28) + 4)) ^ state).wrapping_mul(277_803_737);
    (word >> 22) ^ word
}

impl RandomWeights {
    /// The `i`-th word that the operator writes.
    pub fn word(&self, i: u32) -> u32 {
        let bits = hash(hash(self.first.wrapping_add(i)) ^ self.seed);
        let bf16 = |sixteen: u32| ((sixteen as f32 - 32768.0) * self.step).to_bits() >> 16;
        if self.raw == 1 { bits } else { bf16(bits & 0xffff) | bf16(bits >> 16) << 16 }
    }
}

impl Op for RandomWeights {
    fn kernel(&self) -> Kernel {
        KERNEL
    }

    fn consts(&self, _: &Caps) -> Vec<Const> {
        vec![("WG", WG)]
    }

    fn lens(&self) -> Vec<u64> {
        vec![u64::from(self.at) + u64::from(self.words)]
    }

    fn grid(&self, _: Size, caps: &Caps) -> [u32; 3] {
        caps.grid(self.words.div_ceil(WG).into())
    }

    fn cpu(&self, _: Size, bufs: &mut [Vec<u32>]) {
        for (i, word) in (0..).zip(&mut bufs[0][self.at as usize..][..self.words as usize]) {
            *word = self.word(i);
        }
    }

    fn examples() -> Vec<Example<Self>> {
        let case = |at, words, first, step, raw| {
            Example::rows(RandomWeights { at, words, first, seed: 12_345 + words, step, raw }, 1)
        };
        vec![
            case(0, 1, 0, 1.0, 0),
            case(4, 255, 7, 1e-6, 0),
            case(64, 257, u32::MAX - 3, 0.03 / 32768.0, 0),
            case(12, 1000, 1 << 30, 0.0, 1),
            // More workgroups than one dimension holds.
            case(0, 65_536 * WG + 1, 0, 2e-6, 0),
        ]
    }

    fn bytes(&self, _: Size) -> Option<u64> {
        Some(u64::from(self.words) * 4)
    }
}
