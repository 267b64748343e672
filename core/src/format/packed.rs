//! The quantised matrices of MLX's folders, and the format that each of them gets on the device. All weights keep their
//! exact values. Integers of 2 and 3 bits are stored in 4 bits, and those of 5 and 6 bits in 8. 4-bit floats become
//! 8-bit integers, because each of them is a multiple of one half. 8-bit floats become bf16.

use super::{Format, Quant, Scales};
use crate::checkpoint::Dtype;
use half::bf16;

/// The quantisation modes that MLX names in config.json.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Integers q with a scale and a bias for each group: `scale · q + bias`.
    Affine,
    /// 4-bit floats (E2M1), with a power of two (E8M0) for each group.
    Mxfp4,
    /// 4-bit floats (E2M1), with an 8-bit float (E4M3) for each group.
    Nvfp4,
    /// 8-bit floats (E4M3), with a power of two (E8M0) for each group.
    Mxfp8,
}

impl Mode {
    /// Every mode.
    pub const ALL: [Mode; 4] = [Mode::Affine, Mode::Mxfp4, Mode::Nvfp4, Mode::Mxfp8];

    /// Its name in config.json.
    pub fn name(self) -> &'static str {
        match self {
            Mode::Affine => "affine",
            Mode::Mxfp4 => "mxfp4",
            Mode::Nvfp4 => "nvfp4",
            Mode::Mxfp8 => "mxfp8",
        }
    }

    /// The possible numbers of bits, and the default where config.json names none.
    pub fn bits(self) -> (&'static [u32], u32) {
        match self {
            Mode::Affine => (&[2, 3, 4, 5, 6, 8], 4),
            Mode::Mxfp4 | Mode::Nvfp4 => (&[4], 4),
            Mode::Mxfp8 => (&[8], 8),
        }
    }

    /// The possible group sizes, and the default where config.json names none.
    pub fn groups(self) -> (&'static [u32], u32) {
        match self {
            Mode::Affine => (Quant::GROUPS, 64),
            Mode::Nvfp4 => (&[16], 16),
            Mode::Mxfp4 | Mode::Mxfp8 => (&[32], 32),
        }
    }
}

/// How a file packs a matrix [lines, cols]. `x.weight` is [lines, cols · bits / 32] U32: each row is a stream of bits,
/// the first number in the lowest bits. `x.scales` is [lines, cols / group], and [`Mode::Affine`] has `x.biases` of the
/// same shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Packed {
    /// What the numbers are.
    pub mode: Mode,
    /// Bits per number.
    pub bits: u32,
    /// Numbers of a row that share a scale.
    pub group: u32,
}

impl Packed {
    /// Integers of `bits` bits with scales and biases in groups.
    pub fn affine(bits: u32, group: u32) -> Packed {
        Packed { mode: Mode::Affine, bits, group }
    }

    /// Words of the numbers of one row.
    pub fn words(self, cols: u32) -> u64 {
        u64::from(cols) * u64::from(self.bits) / 32
    }

    /// The names of the tensors beside the numbers, and the dtypes that they may have.
    pub fn beside(self) -> (&'static [&'static str], &'static [Dtype]) {
        match self.mode {
            Mode::Affine => (&["scales", "biases"], &[Dtype::BF16, Dtype::F16, Dtype::F32]),
            _ => (&["scales"], &[Dtype::U8]),
        }
    }

    /// The format on the device, where the scales have this dtype.
    pub fn format(self, scales: Dtype) -> Format {
        let quant =
            |bits| Format::Quant(Quant { bits, group: self.group, scales: Scales::of(scales).unwrap_or_default() });
        match (self.mode, self.bits) {
            (Mode::Affine, ..=4) => quant(4),
            (Mode::Affine | Mode::Mxfp4 | Mode::Nvfp4, _) => quant(8),
            (Mode::Mxfp8, _) => Format::Bf16,
        }
    }

    /// Whether the numbers are copied to the device unchanged.
    pub fn as_it_is(self) -> bool {
        self.mode == Mode::Affine && matches!(self.bits, 4 | 8)
    }

    /// Converts whole rows of the file to words of integers for the device.
    pub fn integers(self, bytes: &[u8]) -> Vec<u32> {
        // Twice the value of an E2M1 float, plus 12, so that no number is negative: codes 0 to 7, then their negatives.
        const TWICE: [u32; 16] = [12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0];
        let (bits, wide) = (self.bits, if self.mode == Mode::Affine && self.bits <= 4 { 4 } else { 8 });
        let (mut words, mut word, mut filled) = (Vec::with_capacity(bytes.len() / 2), 0u32, 0);
        let (mut held, mut count) = (0u32, 0);
        for &byte in bytes {
            held |= u32::from(byte) << count;
            count += 8;
            while count >= bits {
                let number = held & ((1 << bits) - 1);
                (held, count) = (held >> bits, count - bits);
                word |= if self.mode == Mode::Affine { number } else { TWICE[number as usize] } << filled;
                filled += wide;
                if filled == 32 {
                    words.push(word);
                    (word, filled) = (0, 0);
                }
            }
        }
        words
    }

    /// A group's word for the device in the modes with 4-bit floats: half the scale, and a bias of -6 times the scale,
    /// which takes away the 12 of `TWICE` above. Both are exact in bf16: a scale has at most four significant bits, and
    /// six times a scale has at most five.
    pub fn pair(self, scale: u8) -> u32 {
        let scale = if self.mode == Mode::Nvfp4 { e4m3(scale) } else { e8m0(scale) };
        let half = |v: f32| u32::from(bf16::from_f32(v).to_bits());
        half(scale / 2.0) | half(-6.0 * scale) << 16
    }

    /// Words of bf16 from E4M3 floats and their E8M0 scales ([`Mode::Mxfp8`]).
    pub fn bf16_words(self, numbers: &[u8], scales: &[u8]) -> Vec<u32> {
        let value = |number: u8, scale: u8| u32::from(bf16::from_f32(e4m3(number) * e8m0(scale)).to_bits());
        let groups = numbers.chunks(self.group as usize).zip(scales);
        groups
            .flat_map(|(group, &scale)| {
                group.chunks_exact(2).map(move |pair| value(pair[0], scale) | value(pair[1], scale) << 16)
            })
            .collect()
    }
}

/// An 8-bit float: a sign, 4 bits of exponent, 3 bits of mantissa. Only the largest code is NaN.
fn e4m3(code: u8) -> f32 {
    let (exponent, mantissa) = (i32::from(code >> 3 & 15), f32::from(code & 7));
    let size = match exponent {
        _ if code & 0x7f == 0x7f => f32::NAN,
        0 => mantissa * 2f32.powi(-9),
        _ => (8.0 + mantissa) * 2f32.powi(exponent - 10),
    };
    if code & 0x80 == 0 { size } else { -size }
}

/// A power of two in 8 bits. The largest code is NaN.
fn e8m0(code: u8) -> f32 {
    if code == 0xff { f32::NAN } else { 2f32.powi(i32::from(code) - 127) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Packs numbers like the file, bit by bit.
    fn pack(numbers: &[u32], bits: u32) -> Vec<u8> {
        let mut bytes = vec![0u8; numbers.len() * bits as usize / 8];
        for (i, number) in numbers.iter().enumerate() {
            for bit in 0..bits as usize {
                let at = i * bits as usize + bit;
                bytes[at / 8] |= ((number >> bit & 1) as u8) << (at % 8);
            }
        }
        bytes
    }

    #[test]
    fn integers_of_any_width_come_back() {
        for bits in [2, 3, 4, 5, 6, 8] {
            let numbers: Vec<u32> = (0..64).map(|i| (i * 37 + i / 7) % (1 << bits)).collect();
            let packed = Packed::affine(bits, 32);
            let words = packed.integers(&pack(&numbers, bits));
            let wide = if bits <= 4 { 4 } else { 8 };
            let got: Vec<u32> = (0..64).map(|i| words[i * wide / 32] >> (i * wide % 32) & ((1 << wide) - 1)).collect();
            assert_eq!(got, numbers, "{bits} bits");
            assert_eq!(packed.as_it_is(), bits == 4 || bits == 8);
        }
    }

    /// The values in the tables of OCP's specifications of MX and FP8.
    #[test]
    fn floats_of_few_bits_have_their_values() {
        let e2m1 = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0f32];
        for (mode, code, scale) in [(Mode::Mxfp4, 124, 0.125), (Mode::Nvfp4, 0x2b, 0.34375), (Mode::Mxfp4, 127, 1.0)] {
            let packed = Packed { mode, bits: 4, group: 16 };
            let words = packed.integers(&pack(&(0..16).collect::<Vec<_>>(), 4));
            let [half, bias] = [packed.pair(code) << 16, packed.pair(code) & 0xffff_0000].map(f32::from_bits);
            for (i, q) in words.iter().flat_map(|word| word.to_le_bytes()).enumerate() {
                let want = if i < 8 { e2m1[i] } else { -e2m1[i - 8] } * scale;
                assert_eq!(half * f32::from(q) + bias, want, "{mode:?} {i}");
            }
        }
        let known =
            [(0x00, 0.0), (0x01, 0.001953125), (0x07, 0.013671875), (0x08, 0.015625), (0x38, 1.0), (0x7e, 448.0)];
        for (code, value) in known {
            assert_eq!((e4m3(code), e4m3(code | 0x80)), (value, -value));
        }
        let packed = Packed { mode: Mode::Mxfp8, bits: 8, group: 2 };
        let words = packed.bf16_words(&[0x38, 0x7e, 0x81, 0x3c], &[128, 126]);
        let values: Vec<f32> = words.iter().flat_map(|&word| super::super::bf16_pair(word)).collect();
        assert_eq!(values, [2.0, 896.0, -0.0009765625, 0.75]);
    }
}
