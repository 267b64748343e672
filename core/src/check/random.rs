//! A small deterministic random generator (SplitMix64), so that a failing case fails again.

use crate::buf::Elem;

/// Random numbers from a seed.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The generator with this seed.
    pub fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x6e65_6d6f)
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A uniform number in 0..1.
    pub fn uniform(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1 << 24) as f32
    }

    /// A number from the standard normal distribution.
    pub fn normal(&mut self) -> f32 {
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        radius * (std::f32::consts::TAU * self.uniform()).cos()
    }

    /// The words of `len` elements: normally distributed numbers (bf16 for a matrix), or zeros for integers.
    pub fn words(&mut self, elem: Elem, len: u64) -> Vec<u32> {
        let mut pair = |bits: fn(f32) -> u16| {
            let low = u32::from(bits(self.normal()));
            low | u32::from(bits(self.normal())) << 16
        };
        let words = 0..elem.words(len);
        match elem {
            Elem::U32 => words.map(|_| 0).collect(),
            Elem::F32 => words.map(|_| self.normal().to_bits()).collect(),
            Elem::Weights => words.map(|_| pair(|v| half::bf16::from_f32(v).to_bits())).collect(),
            Elem::F16 => words.map(|_| pair(|v| half::f16::from_f32(v).to_bits())).collect(),
        }
    }
}
