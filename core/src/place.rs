//! Where the tensors of a checkpoint go on a device, and how their bytes get there.

use crate::Result;
use crate::buf::Buf;
use crate::checkpoint::{Dtype, TensorInfo, not_finite, numbers};
use crate::exec::Exec;
use crate::format::packed::{Mode, Packed};
use crate::format::{Format, Quant, bf16_pair};
use crate::names::{beside, parts};
use std::borrow::Cow;
use std::collections::HashMap;

/// How a matrix is stored in the checkpoint, and in which format it goes to the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    /// The file has floats, which keep their format.
    Floats(Format),
    /// The file has packed numbers and their scales. They are converted to this format.
    Packed(Packed, Format),
    /// The file has floats, which are quantised while they are loaded.
    Quantise(Quant),
}

impl Stored {
    /// The format of the matrix on the device.
    pub(crate) fn format(self) -> Format {
        match self {
            Stored::Floats(format) | Stored::Packed(_, format) => format,
            Stored::Quantise(quant) => Format::Quant(quant),
        }
    }
}

/// Where the words of a tensor go: a list of (buffer, word offset, number of words).
pub type Pieces = Vec<(Buf, u64, u64)>;

/// Where a tensor of the checkpoint goes.
#[derive(Clone, Debug)]
pub enum Place {
    /// Rows of a matrix as floats, which are copied unchanged.
    Lines(Pieces),
    /// Rows of `cols` floats, which are quantised while they are loaded: the places of the integers, then of the scales
    /// and biases.
    Quantise(Quant, u32, Pieces, Pieces),
    /// Rows of `cols` packed numbers.
    Packed(Packed, u32, Pieces),
    /// The scales of packed 4-bit floats.
    Pairs(Packed, Pieces),
    /// One of two tensors that together make words on the device: which of the two, and the lengths of both in bytes.
    Half(Both, usize, [u64; 2], Pieces),
    /// Numbers that a function maps and that are stored as f32, from an element offset on.
    Floats(Buf, u64, fn(f64) -> f64),
    /// The tensor is read but not stored. So it is with a head in the files of a model with a tied head, until it is
    /// known whether the head differs from the embedding.
    Nowhere,
}

/// What two tensors make together on the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Both {
    /// Scales and biases make the words of the groups.
    Groups,
    /// 8-bit floats and their scales make bf16 numbers.
    Floats8(Packed),
}

impl Place {
    /// The number of bytes that are converted together: a whole word, one number of the tensor, or one row.
    pub(crate) fn unit(&self, dtype: Dtype) -> usize {
        match self {
            Place::Lines(_) => 4,
            Place::Quantise(_, cols, ..) => *cols as usize * dtype.bytes(),
            Place::Packed(packed, cols, _) => packed.words(*cols) as usize * 4,
            Place::Pairs(..) | Place::Half(..) | Place::Floats(..) | Place::Nowhere => dtype.bytes().max(1),
        }
    }
}

/// The places of tensors, by name.
#[derive(Debug, Default)]
pub struct Places {
    places: HashMap<String, Place>,
    /// How matrices are stored, by name. A matrix that is not listed is bf16.
    stored: HashMap<String, Stored>,
}

impl Places {
    /// Begins without places. `stored` says how matrices are stored; a matrix that is not listed is bf16.
    pub fn new(stored: HashMap<String, Stored>) -> Places {
        Places { places: HashMap::new(), stored }
    }

    /// The format of a matrix on the device.
    pub fn format(&self, name: &str) -> Format {
        self.stored.get(name).map_or(Format::Bf16, |stored| stored.format())
    }

    /// Whether a matrix is quantised in the checkpoint.
    pub(crate) fn any_packed(&self) -> bool {
        self.stored.values().any(|stored| matches!(stored, Stored::Packed(..)))
    }

    /// Where a tensor goes.
    pub fn get(&self, name: &str) -> Option<&Place> {
        self.places.get(name)
    }

    /// Sets the place of a tensor.
    pub fn insert(&mut self, name: String, place: Place) {
        self.places.insert(name, place);
    }

    /// Has the loader read a matrix, with its scales and biases, without storing it.
    pub fn ignore(&mut self, name: &str) {
        for name in parts(name) {
            self.insert(name, Place::Nowhere);
        }
    }

    /// Sets the places of the tensors of one matrix. `words` are the places of its numbers, `pairs` those of its scales
    /// and biases.
    pub(crate) fn matrix(&mut self, name: &str, cols: u32, words: Pieces, pairs: Pieces) {
        let count = |pieces: &Pieces| pieces.iter().map(|(_, _, words)| words).sum::<u64>();
        let [scales, biases] = [beside(name, "scales"), beside(name, "biases")];
        match self.stored.get(name).copied() {
            None | Some(Stored::Floats(_)) => self.insert(name.into(), Place::Lines(words)),
            Some(Stored::Quantise(quant)) => self.insert(name.into(), Place::Quantise(quant, cols, words, pairs)),
            Some(Stored::Packed(packed, Format::Quant(_))) if packed.mode == Mode::Affine => {
                // Scale and bias are the two halves of a word, or two words.
                let bytes = [count(&pairs) * 2; 2];
                self.insert(scales, Place::Half(Both::Groups, 0, bytes, pairs.clone()));
                self.insert(biases, Place::Half(Both::Groups, 1, bytes, pairs));
                self.insert(name.into(), Place::Packed(packed, cols, words));
            }
            Some(Stored::Packed(packed, Format::Quant(_))) => {
                self.insert(scales, Place::Pairs(packed, pairs));
                self.insert(name.into(), Place::Packed(packed, cols, words));
            }
            Some(Stored::Packed(packed, _)) => {
                let numbers = count(&words) * 2;
                let bytes = [numbers, numbers / u64::from(packed.group)];
                self.insert(name.into(), Place::Half(Both::Floats8(packed), 0, bytes, words.clone()));
                self.insert(scales, Place::Half(Both::Floats8(packed), 1, bytes, words));
            }
        }
    }
}

/// The bytes of tensors that wait for each other on the host, by the name of their matrix without `.weight`. The two
/// are scales and biases, which are small, or 8-bit floats and their scales.
pub(crate) type Halves = HashMap<String, [Vec<u8>; 2]>;

/// The words of floats that are copied unchanged.
///
/// # Errors
/// As [`numbers`].
fn words<'a>(tensor: &TensorInfo, before: u64, bytes: &'a [u8]) -> Result<Cow<'a, [u32]>> {
    let words = match bytemuck::try_cast_slice(bytes) {
        Ok(words) => Cow::Borrowed(words),
        Err(_) => Cow::Owned(bytemuck::pod_collect_to_vec(bytes)),
    };
    // A float whose exponent bits are all set is infinite or NaN. A word has two halves with 16-bit floats, or one f32.
    let [low, high] = match tensor.dtype {
        Dtype::BF16 => [0x7f80, 0x7f80_0000],
        Dtype::F16 => [0x7c00, 0x7c00_0000],
        _ => [0x7f80_0000; 2],
    };
    // The loop has no early exit, so that it runs at the speed of memory.
    if words.iter().fold(false, |found, &word| found | (word & low == low) | (word & high == high)) {
        numbers(&tensor.name, tensor.dtype, before, bytes)?;
    }
    Ok(words)
}

/// Converts numbers of a tensor and writes them to its place. `before` is how many numbers of the tensor came before
/// them.
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
            let words = words(tensor, before, bytes)?;
            scatter(exec, pieces, before * tensor.dtype.bytes() as u64 / 4, &words);
        }
        Place::Quantise(quant, cols, packed, pairs) => {
            let lines = before / u64::from(*cols);
            let (mut integers, mut groups) = (vec![], vec![]);
            quant.quantise(&numbers(&tensor.name, tensor.dtype, before, bytes)?, &mut integers, &mut groups);
            scatter(exec, packed, lines * u64::from(quant.words(*cols)), &integers);
            scatter(exec, pairs, lines * u64::from(quant.group_words(*cols)), &groups);
        }
        Place::Packed(packed, _, pieces) if packed.as_it_is() => {
            scatter(exec, pieces, before, &bytemuck::pod_collect_to_vec(bytes));
        }
        Place::Packed(packed, cols, pieces) => {
            let line = before / packed.words(*cols);
            let words = packed.integers(bytes);
            let per_line = words.len() as u64 * packed.words(*cols) * 4 / bytes.len() as u64;
            scatter(exec, pieces, line * per_line, &words);
        }
        Place::Pairs(packed, pieces) => {
            let words: Vec<u32> = bytes.iter().map(|&scale| packed.pair(scale)).collect();
            // One word for each scale.
            finite(
                &tensor.name,
                (before..).zip(&words).flat_map(|(at, &word)| bf16_pair(word).map(|value| (at, value))),
            )?;
            scatter(exec, pieces, before, &words);
        }
        Place::Half(both, which, all, pieces) => {
            if *both == Both::Groups {
                numbers(&tensor.name, tensor.dtype, before, bytes)?;
            }
            let stem = tensor.name.rsplit_once('.').map_or("", |(stem, _)| stem);
            let held = halves.entry(stem.into()).or_default();
            held[*which].extend(bytes);
            if [0, 1].iter().all(|&i| held[i].len() as u64 == all[i]) {
                let [first, second] = halves.remove(stem).unwrap_or_default();
                let words = match both {
                    Both::Groups => interleaved(&first, &second, tensor.dtype.bytes()),
                    Both::Floats8(packed) => {
                        let words = packed.bf16_words(&first, &second);
                        finite(&format!("{stem}.weight"), (0..).zip(words.iter().flat_map(|&word| bf16_pair(word))))?;
                        words
                    }
                };
                scatter(exec, pieces, 0, &words);
            }
        }
    }
    Ok(())
}

/// Numbers of `size` bytes taken from `first` and `second` in turn, as words.
fn interleaved(first: &[u8], second: &[u8], size: usize) -> Vec<u32> {
    let mut bytes = Vec::with_capacity(first.len() + second.len());
    for (first, second) in first.chunks(size).zip(second.chunks(size)) {
        bytes.extend_from_slice(first);
        bytes.extend_from_slice(second);
    }
    bytemuck::pod_collect_to_vec(&bytes)
}

/// Refuses numbers of a tensor, each with its index, that are infinite or NaN.
fn finite(name: &str, mut numbers: impl Iterator<Item = (u64, f32)>) -> Result<()> {
    match numbers.find(|(_, value)| !value.is_finite()) {
        Some((at, value)) => Err(not_finite(name, at, value)),
        None => Ok(()),
    }
}

/// Writes words of a tensor, from word `at` of the tensor on, into the pieces that hold it.
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
