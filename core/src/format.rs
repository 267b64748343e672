//! How a matrix keeps its numbers on a device: bf16 as published, or integers that share a scale and a bias by
//! groups, the affine scheme of MLX's quantised folders. `shaders/lib/weights_*.wgsl` read the same layouts.

use crate::kernel::Const;
use crate::{Error, Result};
use half::{bf16, f16};
use std::fmt;

/// The format of a matrix [lines, cols].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// Two bf16 in a word, the first in the low half.
    Bf16,
    /// Integers with scales and biases.
    Quant(Quant),
}

/// Integers of `bits` bits; `group` neighbours in a line share a scale and a bias: `weight = scale · q + bias`.
///
/// First all integers, [lines, cols · bits / 32] words with the first in the lowest bits, then one word for each
/// group, [lines, cols / group], with the scale in its low half and the bias in its high half.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Quant {
    /// Bits of an integer: 4 or 8.
    pub bits: u32,
    /// Integers that share a scale and a bias: 32, 64 or 128.
    pub group: u32,
    /// Scales and biases are f16 instead of bf16.
    pub scale_f16: bool,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Format::Bf16 => f.write_str("bf16"),
            Format::Quant(Quant { bits, group, .. }) => write!(f, "{bits} bits in groups of {group}"),
        }
    }
}

impl Format {
    /// The format as an operator's number: 0 is bf16.
    pub fn code(self) -> u32 {
        match self {
            Format::Bf16 => 0,
            Format::Quant(Quant { bits, group, scale_f16 }) => bits | group << 8 | u32::from(scale_f16) << 16,
        }
    }

    /// The format of an operator's number.
    pub fn of(code: u32) -> Format {
        match code {
            0 => Format::Bf16,
            _ => Format::Quant(Quant { bits: code & 0xff, group: code >> 8 & 0xff, scale_f16: code >> 16 != 0 }),
        }
    }

    /// Words of such a matrix.
    pub fn words(self, lines: u32, cols: u32) -> u64 {
        let per_line = match self {
            Format::Bf16 => cols / 2,
            Format::Quant(q) => q.words(cols) + q.groups(cols),
        };
        u64::from(lines) * u64::from(per_line)
    }

    /// The constants of kernels that read it: see [`Part::Weights`](crate::kernel::Part::Weights).
    pub(crate) fn consts(self) -> Vec<Const> {
        let mut consts = vec![("PER", self.chunk() / 4)];
        if let Format::Quant(Quant { bits, group, scale_f16 }) = self {
            consts.extend([("BITS", bits), ("GROUP", group), ("SCALE_F16", scale_f16.into())]);
        }
        consts
    }

    /// Weights that a thread takes at a time: what 16 bytes hold.
    pub(crate) fn chunk(self) -> u32 {
        match self {
            Format::Bf16 => 8,
            Format::Quant(q) => 128 / q.bits,
        }
    }

    /// One line of a matrix of `lines` lines of `out.len()` columns, as numbers.
    pub(crate) fn line(self, words: &[u32], lines: u32, line: usize, out: &mut [f32]) {
        let cols = out.len();
        match self {
            Format::Bf16 => {
                let words = &words[line * cols / 2..][..cols / 2];
                for (out, &word) in out.chunks_exact_mut(2).zip(words) {
                    out.copy_from_slice(&bf16_pair(word));
                }
            }
            Format::Quant(q) => {
                let (per_line, groups) = (q.words(cols as u32) as usize, q.groups(cols as u32) as usize);
                let pairs = &words[lines as usize * per_line + line * groups..][..groups];
                let packed = &words[line * per_line..][..per_line];
                let (per_word, mask) = (32 / q.bits as usize, (1u32 << q.bits) - 1);
                let group = q.group as usize;
                for ((out, packed), &pair) in out.chunks_mut(group).zip(packed.chunks(group / per_word)).zip(pairs) {
                    let [scale, bias] = q.pair(pair);
                    for (out, &word) in out.chunks_exact_mut(per_word).zip(packed) {
                        for (i, out) in out.iter_mut().enumerate() {
                            *out = scale * (word >> (i as u32 * q.bits) & mask) as f32 + bias;
                        }
                    }
                }
            }
        }
    }

    /// Words of a matrix for tests, with numbers like weights. Any bf16 will do, so they need none.
    pub(crate) fn example(self, lines: u32, cols: u32, uniform: &mut dyn FnMut() -> f32) -> Option<Vec<u32>> {
        let Format::Quant(q) = self else { return None };
        let packed = u64::from(lines) * u64::from(q.words(cols));
        let pair = |uniform: &mut dyn FnMut() -> f32| {
            let half = (1u32 << (q.bits - 1)) as f32;
            let scale = (0.1 + uniform()) / half;
            q.halves(scale, -half * scale * (0.5 + uniform()))
        };
        let word =
            |uniform: &mut dyn FnMut() -> f32| (uniform() * 65536.0) as u32 | ((uniform() * 65536.0) as u32) << 16;
        Some((0..self.words(lines, cols)).map(|i| if i < packed { word(uniform) } else { pair(uniform) }).collect())
    }
}

/// The two bf16 of a word as f32, exactly.
pub(crate) fn bf16_pair(word: u32) -> [f32; 2] {
    [f32::from_bits(word << 16), f32::from_bits(word & 0xffff_0000)]
}

impl Quant {
    /// The possible bits.
    pub const BITS: &[u32] = &[4, 8];
    /// The possible groups.
    pub const GROUPS: &[u32] = &[32, 64, 128];

    /// Holds bits and group against those that there are.
    ///
    /// # Errors
    /// [`Error::Parameter`].
    pub fn validate(self) -> Result<()> {
        let field = |name, value: u32, known: &[u32]| match known.contains(&value) {
            true => Ok(()),
            false => Err(Error::Parameter { name, why: format!("{value} is not one of {known:?}") }),
        };
        field("bits", self.bits, Self::BITS)?;
        field("group_size", self.group, Self::GROUPS)
    }

    /// Words of the integers of a line.
    pub fn words(self, cols: u32) -> u32 {
        cols / (32 / self.bits)
    }

    /// Groups of a line.
    pub fn groups(self, cols: u32) -> u32 {
        cols / self.group
    }

    /// Scale and bias of a group's word.
    fn pair(self, word: u32) -> [f32; 2] {
        let halves = [word as u16, (word >> 16) as u16];
        if self.scale_f16 {
            halves.map(|h| f16::from_bits(h).to_f32())
        } else {
            halves.map(|h| bf16::from_bits(h).to_f32())
        }
    }

    /// A group's word, from its scale and bias.
    pub(crate) fn halves(self, scale: f32, bias: f32) -> u32 {
        let half = |v: f32| if self.scale_f16 { f16::from_f32(v).to_bits() } else { bf16::from_f32(v).to_bits() };
        u32::from(half(scale)) | u32::from(half(bias)) << 16
    }

    /// Quantises lines: the integers' words go to `packed`, the groups' words to `pairs`. The number of values must
    /// be a multiple of `group`.
    ///
    /// The range of each group is cut into 2^bits - 1 steps. Scale and bias are rounded first and the integers
    /// chosen for the rounded ones, so that their rounding costs nothing but range.
    pub fn quantise(self, values: &[f32], packed: &mut Vec<u32>, pairs: &mut Vec<u32>) {
        /// Added to a number below it, it leaves the rounded number in the lowest bits.
        const ROUND: f32 = 8_388_608.0;
        let most = ((1u32 << self.bits) - 1) as f32;
        let per_word = 32 / self.bits as usize;
        let mut integers = [0u32; 128];
        for group in values.chunks_exact(self.group as usize) {
            // Eight side by side, here and below without a branch, so that the compiler can use vector registers.
            let (mut low, mut high) = ([f32::MAX; 8], [f32::MIN; 8]);
            for values in group.as_chunks::<8>().0 {
                for i in 0..8 {
                    low[i] = low[i].min(values[i]);
                    high[i] = high[i].max(values[i]);
                }
            }
            let (low, high) = (low.into_iter().fold(f32::MAX, f32::min), high.into_iter().fold(f32::MIN, f32::max));
            let word = self.halves((high - low) / most, low);
            let [scale, bias] = self.pair(word);
            let per_scale = if scale > 0.0 { 1.0 / scale } else { 0.0 };
            pairs.push(word);
            let integers = &mut integers[..group.len()];
            for (q, &v) in integers.iter_mut().zip(group) {
                *q = (((v - bias) * per_scale).clamp(0.0, most) + ROUND).to_bits() & 0xff;
            }
            packed.extend(
                integers.chunks_exact(per_word).map(|q| q.iter().rev().fold(0, |word, q| word << self.bits | q)),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Quant; 4] = [
        Quant { bits: 4, group: 32, scale_f16: false },
        Quant { bits: 4, group: 128, scale_f16: true },
        Quant { bits: 8, group: 64, scale_f16: false },
        Quant { bits: 8, group: 32, scale_f16: true },
    ];

    #[test]
    fn codes_come_back() {
        for format in ALL.map(Format::Quant).into_iter().chain([Format::Bf16]) {
            assert_eq!(Format::of(format.code()), format);
        }
    }

    /// Values come back within half a step of their group, beside what rounding scale and bias shifts.
    #[test]
    fn values_come_back() {
        for quant in ALL {
            let (lines, cols) = (3, 256);
            let values: Vec<f32> = (0..lines * cols).map(|i| ((i * 37 % 101) as f32 - 50.0) / 200.0).collect();
            let (mut words, mut pairs) = (vec![], vec![]);
            quant.quantise(&values, &mut words, &mut pairs);
            words.extend(pairs);
            let format = Format::Quant(quant);
            assert_eq!(words.len() as u64, format.words(lines, cols));
            let step = 0.5 / ((1 << quant.bits) - 1) as f32;
            for line in 0..lines as usize {
                let mut out = vec![0.0; cols as usize];
                format.line(&words, lines, line, &mut out);
                let worst =
                    out.iter().zip(&values[line * cols as usize..]).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                assert!(worst < 0.5 * step + 0.004 * 0.25 + 1e-6, "{quant:?}: {worst}, step {step}");
            }
        }
    }

    #[test]
    fn a_constant_group_is_exact() {
        let quant = ALL[0];
        let (mut words, mut pairs) = (vec![], vec![]);
        quant.quantise(&[0.25; 32], &mut words, &mut pairs);
        words.extend(pairs);
        let mut out = [0.0; 32];
        Format::Quant(quant).line(&words, 1, 0, &mut out);
        assert_eq!(out, [0.25; 32]);
    }
}
