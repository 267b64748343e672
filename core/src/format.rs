//! How a matrix stores its numbers on a device: as the floats of the checkpoint, or as integers in groups that share a
//! scale and a bias (the affine scheme of MLX's quantised folders). `shaders/lib/weights_*.wgsl` read the same layouts.
//! [`packed`] converts MLX's other schemes to these.
//!
//! In names, a row of a matrix is a *line*, because a *row* is a token of a batch in other modules.

pub(crate) mod packed;

use crate::checkpoint::Dtype;
use crate::kernel::Const;
use crate::{Error, Result};
use half::{bf16, f16};
use nemoflash_shaders as wgsl;
use std::fmt;

/// The format of a matrix [lines, cols]. A word has 32 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Format {
    /// Two bf16 per word, the first in the low half.
    Bf16,
    /// Two f16 per word, the first in the low half.
    F16,
    /// One f32 per word.
    F32,
    /// Integers with scales and biases.
    Quant(Quant),
}

/// Integers of `bits` bits. `group` neighbours in a row of the matrix share a scale and a bias: `weight = scale · q +
/// bias`.
///
/// The integers come first: [lines, cols · bits / 32] words, the first integer of a word in its lowest bits. The scales
/// and biases of the groups follow: [lines, cols / group] words, with the scale in the low half and the bias in the
/// high half. Where scales and biases are f32, each group takes two words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Quant {
    /// Bits per integer: 4 or 8.
    pub bits: u32,
    /// Integers that share a scale and a bias: 32, 64 or 128. With 8 bits, 16 is possible, too.
    pub group: u32,
    /// The type of scales and biases.
    pub scales: Scales,
}

/// The type of scales and biases.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Scales {
    /// bf16. `--weights` and `quantize` use it.
    #[default]
    Bf16,
    /// f16.
    F16,
    /// f32.
    F32,
}

impl Scales {
    /// Words of one scale and one bias.
    pub(crate) fn words(self) -> u32 {
        if self == Scales::F32 { 2 } else { 1 }
    }

    /// The type for scales of this dtype in a checkpoint.
    pub(crate) fn of(dtype: Dtype) -> Option<Scales> {
        match dtype {
            Dtype::BF16 => Some(Scales::Bf16),
            Dtype::F16 => Some(Scales::F16),
            Dtype::F32 => Some(Scales::F32),
            _ => None,
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Format::Bf16 => f.write_str("bf16"),
            Format::F16 => f.write_str("f16"),
            Format::F32 => f.write_str("f32"),
            Format::Quant(Quant { bits, group, .. }) => write!(f, "{bits} bits in groups of {group}"),
        }
    }
}

impl Format {
    /// The format for floats of this dtype in a checkpoint.
    pub(crate) fn float(dtype: Dtype) -> Option<Format> {
        match dtype {
            Dtype::BF16 => Some(Format::Bf16),
            Dtype::F16 => Some(Format::F16),
            Dtype::F32 => Some(Format::F32),
            _ => None,
        }
    }

    /// Number of words of a matrix [lines, cols].
    pub fn words(self, lines: u32, cols: u32) -> u64 {
        let per_line = match self {
            Format::Bf16 | Format::F16 => cols / 2,
            Format::F32 => cols,
            Format::Quant(q) => q.words(cols) + q.group_words(cols),
        };
        u64::from(lines) * u64::from(per_line)
    }

    /// The constants of kernels that read this format, see [`Source::Weights`](crate::kernel::Source::Weights).
    pub(crate) fn consts(self) -> Vec<Const> {
        let mut consts = vec![("PER", self.chunk() / 4)];
        match self {
            Format::Bf16 => {}
            Format::F16 => consts.push(("F16_WEIGHTS", 1)),
            Format::F32 => consts.push(("F32_WEIGHTS", 1)),
            Format::Quant(Quant { bits, group, scales }) => {
                consts.extend([("BITS", bits), ("GROUP", group), ("SCALES", scales as u32)]);
            }
        }
        consts
    }

    /// The WGSL text that reads the format with these constants.
    pub(crate) fn text(consts: &[Const]) -> &'static str {
        let has = |wanted: &str| consts.iter().any(|(name, _)| *name == wanted);
        match () {
            () if has("BITS") => wgsl::WEIGHTS_QUANT,
            () if has("F16_WEIGHTS") => wgsl::WEIGHTS_F16,
            () if has("F32_WEIGHTS") => wgsl::WEIGHTS_F32,
            () => wgsl::WEIGHTS_BF16,
        }
    }

    /// Number of weights that a thread reads at a time: as many as 16 bytes hold.
    pub(crate) fn chunk(self) -> u32 {
        match self {
            Format::Bf16 | Format::F16 => 8,
            Format::F32 => 4,
            Format::Quant(q) => 128 / q.bits,
        }
    }

    /// Row `line` of a matrix as f32. The matrix has `lines` rows of `out.len()` columns.
    pub(crate) fn line(self, words: &[u32], lines: u32, line: usize, out: &mut [f32]) {
        let cols = out.len();
        match self {
            Format::Bf16 => {
                let words = &words[line * cols / 2..][..cols / 2];
                for (out, &word) in out.chunks_exact_mut(2).zip(words) {
                    out.copy_from_slice(&bf16_pair(word));
                }
            }
            Format::F16 => {
                let words = &words[line * cols / 2..][..cols / 2];
                for (out, &word) in out.chunks_exact_mut(2).zip(words) {
                    out.copy_from_slice(&[word as u16, (word >> 16) as u16].map(|half| f16::from_bits(half).to_f32()));
                }
            }
            Format::F32 => out.copy_from_slice(bytemuck::cast_slice(&words[line * cols..][..cols])),
            Format::Quant(q) => {
                let (per_line, groups) = (q.words(cols as u32) as usize, q.groups(cols as u32) as usize);
                let size = q.scales.words() as usize;
                let pairs = &words[lines as usize * per_line + line * groups * size..][..groups * size];
                let packed = &words[line * per_line..][..per_line];
                let (per_word, mask) = (32 / q.bits as usize, (1u32 << q.bits) - 1);
                let group = q.group as usize;
                let groups = out.chunks_mut(group).zip(packed.chunks(group / per_word));
                for ((out, packed), pair) in groups.zip(pairs.chunks(size)) {
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

    /// The words of a matrix for tests, with numbers in the range of weights. `None` for bf16, where tests use any
    /// random numbers.
    pub(crate) fn example(self, lines: u32, cols: u32, uniform: &mut dyn FnMut() -> f32) -> Option<Vec<u32>> {
        let q = match self {
            Format::Bf16 => return None,
            Format::F16 | Format::F32 => {
                let half = |v: f32| u32::from(f16::from_f32(v).to_bits());
                let mut value = || (uniform() - 0.5) * 0.2;
                let word =
                    |_| if self == Format::F32 { value().to_bits() } else { half(value()) | half(value()) << 16 };
                return Some((0..self.words(lines, cols)).map(word).collect());
            }
            Format::Quant(q) => q,
        };
        let packed = u64::from(lines) * u64::from(q.words(cols));
        let pair = |uniform: &mut dyn FnMut() -> f32| {
            let half = (1u32 << (q.bits - 1)) as f32;
            let scale = (0.1 + uniform()) / half;
            q.halves(scale, -half * scale * (0.5 + uniform()))
        };
        let word =
            |uniform: &mut dyn FnMut() -> f32| (uniform() * 65536.0) as u32 | ((uniform() * 65536.0) as u32) << 16;
        let mut words: Vec<u32> = (0..packed).map(|_| word(uniform)).collect();
        for _ in 0..u64::from(lines) * u64::from(q.groups(cols)) {
            words.extend(&pair(uniform)[..q.scales.words() as usize]);
        }
        Some(words)
    }
}

/// The two bf16 of a word as f32. The conversion is exact.
pub(crate) fn bf16_pair(word: u32) -> [f32; 2] {
    [f32::from_bits(word << 16), f32::from_bits(word & 0xffff_0000)]
}

impl Quant {
    /// Integers whose scales and biases are bf16.
    pub fn new(bits: u32, group: u32) -> Quant {
        Quant { bits, group, scales: Scales::Bf16 }
    }

    /// The possible numbers of bits.
    pub const BITS: &[u32] = &[4, 8];
    /// The group sizes that matrices can be quantised with.
    pub const GROUPS: &[u32] = &[32, 64, 128];

    /// Checks that bits and group size are possible.
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

    /// Words of the integers of one row.
    pub fn words(self, cols: u32) -> u32 {
        cols / (32 / self.bits)
    }

    /// Groups of one row.
    pub fn groups(self, cols: u32) -> u32 {
        cols / self.group
    }

    /// Words of the scales and biases of one row.
    pub(crate) fn group_words(self, cols: u32) -> u32 {
        self.groups(cols) * self.scales.words()
    }

    /// Scale and bias from the words of a group.
    fn pair(self, words: &[u32]) -> [f32; 2] {
        let halves = [words[0] as u16, (words[0] >> 16) as u16];
        match self.scales {
            Scales::Bf16 => halves.map(|h| bf16::from_bits(h).to_f32()),
            Scales::F16 => halves.map(|h| f16::from_bits(h).to_f32()),
            Scales::F32 => [words[0], words[1]].map(f32::from_bits),
        }
    }

    /// The words of a group from its scale and bias. The second word is used only where they are f32.
    pub(crate) fn halves(self, scale: f32, bias: f32) -> [u32; 2] {
        let both = |[scale, bias]: [u16; 2]| [u32::from(scale) | u32::from(bias) << 16, 0];
        match self.scales {
            Scales::Bf16 => both([scale, bias].map(|v| bf16::from_f32(v).to_bits())),
            Scales::F16 => both([scale, bias].map(|v| f16::from_f32(v).to_bits())),
            Scales::F32 => [scale, bias].map(f32::to_bits),
        }
    }

    /// Quantises whole groups. The words of the integers are appended to `packed`, those of scales and biases to
    /// `pairs`. The number of values must be a multiple of `group`.
    ///
    /// The range of each group is cut into 2^bits - 1 steps. Scale and bias are rounded first, and the integers are
    /// chosen for the rounded ones. So this rounding adds no error, except where it shrinks the range.
    pub fn quantise(self, values: &[f32], packed: &mut Vec<u32>, pairs: &mut Vec<u32>) {
        /// Adding this to a smaller number leaves the rounded number in the lowest bits of the sum.
        const ROUND: f32 = 8_388_608.0;
        let most = ((1u32 << self.bits) - 1) as f32;
        let per_word = 32 / self.bits as usize;
        let mut integers = [0u32; 128];
        for group in values.chunks_exact(self.group as usize) {
            // The loops take eight numbers at a time and have no branches, so that the compiler can use vector
            // registers.
            let (mut low, mut high) = ([f32::MAX; 8], [f32::MIN; 8]);
            for values in group.as_chunks::<8>().0 {
                for i in 0..8 {
                    low[i] = low[i].min(values[i]);
                    high[i] = high[i].max(values[i]);
                }
            }
            let (low, high) = (low.into_iter().fold(f32::MAX, f32::min), high.into_iter().fold(f32::MIN, f32::max));
            let words = self.halves((high - low) / most, low);
            let [scale, bias] = self.pair(&words);
            let per_scale = if scale > 0.0 { 1.0 / scale } else { 0.0 };
            pairs.extend(&words[..self.scales.words() as usize]);
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

    const ALL: [Quant; 5] = [
        Quant { bits: 4, group: 32, scales: Scales::Bf16 },
        Quant { bits: 4, group: 128, scales: Scales::F16 },
        Quant { bits: 8, group: 64, scales: Scales::Bf16 },
        Quant { bits: 8, group: 32, scales: Scales::F16 },
        Quant { bits: 4, group: 64, scales: Scales::F32 },
    ];

    /// The error of a value is at most half a step of its group, plus what rounding scale and bias adds.
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
