//! Where the tensors of a checkpoint go on a device, and how their bytes get there.

use crate::Result;
use crate::buf::Buf;
use crate::checkpoint::{Dtype, TensorInfo, not_finite, numbers};
use crate::exec::Exec;
use crate::format::{Format, Quant};
use crate::inventory::{Stored, beside};
use half::bf16;
use std::borrow::Cow;
use std::collections::HashMap;

/// Where the words of a tensor go: pieces of (buffer, word offset, words).
pub type Pieces = Vec<(Buf, u64, u64)>;

/// Where a tensor of the checkpoint goes.
#[derive(Clone, Debug)]
pub enum Place {
    /// Lines of bf16.
    Lines(Pieces),
    /// Lines of `cols` numbers that are quantised as they come: the integers, then the groups' words.
    Quantise(Quant, u32, Pieces, Pieces),
    /// Integers that are quantised already, as they are.
    Packed(Pieces),
    /// Scales or biases, which of them and the groups' words that both make together.
    Halves(Half, Pieces),
    /// Numbers as f32 at an element offset, each through a function.
    Floats(Buf, u64, fn(f64) -> f64),
    /// Read and not kept: a tied head that the file has all the same.
    Nowhere,
}

/// Which half of a group's word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Half {
    /// The low one.
    Scale,
    /// The high one.
    Bias,
}

impl Place {
    /// Numbers that are converted together: two bf16 make a word, and a line is quantised as a whole.
    pub(crate) fn unit(&self) -> usize {
        match self {
            Place::Lines(_) => 2,
            Place::Quantise(_, cols, ..) => *cols as usize,
            Place::Packed(_) | Place::Halves(..) | Place::Floats(..) | Place::Nowhere => 1,
        }
    }
}

/// Tensor names and their places.
#[derive(Debug, Default)]
pub struct Places {
    places: HashMap<String, Place>,
    /// What is not bf16, by the name of the matrix.
    stored: HashMap<String, Stored>,
}

impl Places {
    /// None yet, for matrices that are stored like this; what is not listed is bf16.
    pub fn new(stored: HashMap<String, Stored>) -> Places {
        Places { places: HashMap::new(), stored }
    }

    /// The format of a matrix on the device.
    pub fn format(&self, name: &str) -> Format {
        match self.stored.get(name) {
            None => Format::Bf16,
            Some(Stored::Quantised(quant) | Stored::Quantise(quant)) => Format::Quant(*quant),
        }
    }

    /// Whether a matrix is quantised in the checkpoint.
    pub(crate) fn any_packed(&self) -> bool {
        self.stored.values().any(|stored| matches!(stored, Stored::Quantised(_)))
    }

    /// Where a tensor goes.
    pub fn get(&self, name: &str) -> Option<&Place> {
        self.places.get(name)
    }

    /// Sets the place of a tensor.
    pub fn insert(&mut self, name: String, place: Place) {
        self.places.insert(name, place);
    }

    /// A tensor that is read and not kept, with its scales and biases.
    pub fn ignore(&mut self, name: &str) {
        for name in [name.to_owned(), beside(name, "scales"), beside(name, "biases")] {
            self.insert(name, Place::Nowhere);
        }
    }

    pub(crate) fn matrix(&mut self, name: &str, cols: u32, words: Pieces, pairs: Pieces) {
        match self.stored.get(name) {
            None => self.insert(name.into(), Place::Lines(words)),
            Some(&Stored::Quantise(quant)) => self.insert(name.into(), Place::Quantise(quant, cols, words, pairs)),
            Some(Stored::Quantised(_)) => {
                self.insert(beside(name, "scales"), Place::Halves(Half::Scale, pairs.clone()));
                self.insert(beside(name, "biases"), Place::Halves(Half::Bias, pairs));
                self.insert(name.into(), Place::Packed(words));
            }
        }
    }
}

/// Scales and biases that wait for each other, by the name of their matrix without `.weight`.
pub(crate) type Halves = HashMap<String, [Vec<u16>; 2]>;

/// The words of bf16 numbers as they are.
///
/// # Errors
/// As [`numbers`].
fn bf16_words<'a>(tensor: &TensorInfo, before: u64, bytes: &'a [u8]) -> Result<Cow<'a, [u32]>> {
    let words = match bytemuck::try_cast_slice(bytes) {
        Ok(words) => Cow::Borrowed(words),
        Err(_) => Cow::Owned(bytemuck::pod_collect_to_vec(bytes)),
    };
    const EXPONENT: u32 = 0x7f80;
    let odd = |word: u32| word & EXPONENT == EXPONENT || word >> 16 & EXPONENT == EXPONENT;
    // Without a way out of the loop, so that it runs at the speed of memory.
    if words.iter().fold(false, |found, &word| found | odd(word)) {
        numbers(&tensor.name, tensor.dtype, before, bytes)?;
    }
    Ok(words)
}

/// Converts whole numbers of a tensor, of which `before` came earlier, and writes them.
pub(crate) fn put(
    exec: &mut Exec,
    place: &Place,
    tensor: &TensorInfo,
    before: u64,
    bytes: &[u8],
    halves: &mut Halves,
) -> Result<()> {
    match place {
        Place::Nowhere => {}
        Place::Floats(buf, at, map) => {
            let mut words = vec![];
            for (value, i) in numbers(&tensor.name, tensor.dtype, before, bytes)?.into_iter().zip(before..) {
                let value = map(value.into()) as f32;
                if !value.is_finite() {
                    return Err(not_finite(&tensor.name, i, value));
                }
                words.push(value.to_bits());
            }
            exec.write(*buf, at + before, &words);
        }
        Place::Lines(pieces) => {
            let words = match tensor.dtype {
                Dtype::BF16 => bf16_words(tensor, before, bytes)?,
                _ => {
                    let word = |pair: &[f32]| {
                        let [low, high] = [pair[0], pair[1]].map(|v| u32::from(bf16::from_f32(v).to_bits()));
                        low | high << 16
                    };
                    numbers(&tensor.name, tensor.dtype, before, bytes)?.chunks_exact(2).map(word).collect()
                }
            };
            scatter(exec, pieces, before / 2, &words);
        }
        Place::Quantise(quant, cols, packed, pairs) => {
            let lines = before / u64::from(*cols);
            let (mut integers, mut groups) = (vec![], vec![]);
            quant.quantise(&numbers(&tensor.name, tensor.dtype, before, bytes)?, &mut integers, &mut groups);
            scatter(exec, packed, lines * u64::from(quant.words(*cols)), &integers);
            scatter(exec, pairs, lines * u64::from(quant.groups(*cols)), &groups);
        }
        Place::Packed(pieces) => scatter(exec, pieces, before, &bytemuck::pod_collect_to_vec(bytes)),
        Place::Halves(half, pieces) => {
            numbers(&tensor.name, tensor.dtype, before, bytes)?;
            let stem = tensor.name.rsplit_once('.').map_or("", |(stem, _)| stem);
            let both = halves.entry(stem.into()).or_default();
            both[usize::from(*half == Half::Bias)].extend(bytemuck::pod_collect_to_vec::<u8, u16>(bytes));
            let [scales, biases] = &*both;
            let all = pieces.iter().map(|(_, _, words)| words).sum::<u64>();
            if scales.len() as u64 == all && biases.len() as u64 == all {
                let pair = |(&scale, &bias): (&u16, &u16)| u32::from(scale) | u32::from(bias) << 16;
                let words: Vec<u32> = scales.iter().zip(biases).map(pair).collect();
                scatter(exec, pieces, 0, &words);
                halves.remove(stem);
            }
        }
    }
    Ok(())
}

/// Writes words of a tensor from word `at` on into the pieces that hold it.
fn scatter(exec: &mut Exec, pieces: &[(Buf, u64, u64)], mut at: u64, mut words: &[u32]) {
    for &(buf, start, len) in pieces {
        if at >= len {
            at -= len;
            continue;
        }
        let here = usize::try_from(len - at).unwrap_or(usize::MAX).min(words.len());
        exec.write(buf, start + at, &words[..here]);
        words = &words[here..];
        at = 0;
        if words.is_empty() {
            return;
        }
    }
}
