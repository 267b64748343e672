//! Weight matrices on a device, and where a checkpoint's tensors go.

use crate::buf::{Buf, Elem};
use crate::exec::Exec;
use crate::format::{Format, Quant};
use crate::inventory::{Stored, beside};
use crate::{Error, Result};
use std::collections::HashMap;

/// Lines of a matrix that one binding holds.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    /// The lines. With a gate: `outs` lines of the gate, then `outs` lines of up.
    pub buf: Buf,
    /// First output.
    pub first: u32,
    /// Outputs.
    pub outs: u32,
    /// Lines: `outs`, or twice as many with a gate.
    pub lines: u32,
    /// How they keep their numbers.
    pub format: Format,
}

/// A matrix [outs, cols], cut into parts where one binding cannot hold it or the format changes.
#[derive(Clone, Debug)]
pub struct Matrix {
    /// Outputs.
    pub outs: u32,
    /// Inputs.
    pub cols: u32,
    /// The parts in order.
    pub parts: Vec<Part>,
}

impl Matrix {
    /// Room for tensors `name` [outs, cols] on top of each other, and their places.
    pub async fn stack(exec: &mut Exec, places: &mut Places, cols: u32, tensors: &[(String, u32)]) -> Result<Matrix> {
        let tensors: Vec<_> = tensors.iter().map(|(name, outs)| (std::slice::from_ref(name), *outs)).collect();
        Self::alloc(exec, places, cols, &tensors).await
    }

    /// Room for a gate and its up matrix, [outs, cols] both, and their places.
    pub async fn gated(
        exec: &mut Exec,
        places: &mut Places,
        cols: u32,
        outs: u32,
        gate_up: &[String; 2],
    ) -> Result<Matrix> {
        Self::alloc(exec, places, cols, &[(gate_up, outs)]).await
    }

    /// Room for outputs that each take a line of every name beside them.
    async fn alloc(exec: &mut Exec, places: &mut Places, cols: u32, tensors: &[(&[String], u32)]) -> Result<Matrix> {
        let mut matrix = Matrix { outs: tensors.iter().map(|(_, outs)| outs).sum(), cols, parts: vec![] };
        let mut first = 0;
        // Neighbours of one format share their parts.
        for run in tensors.chunk_by(|a, b| places.format(&a.0[0]) == places.format(&b.0[0])) {
            let format = places.format(&run[0].0[0]);
            let name = &run[0].0[0];
            if let Some(other) = run.iter().flat_map(|(names, _)| *names).find(|other| places.format(other) != format) {
                return Err(Error::Tensors(vec![format!("{name} and {other} are not quantised alike")]));
            }
            let outs = run.iter().map(|(_, outs)| outs).sum();
            matrix.add(exec, name, format, first, outs, run[0].0.len() as u32).await?;
            first += outs;
        }
        let mut first = 0;
        for (names, outs) in tensors {
            for (half, name) in (0..).zip(*names) {
                matrix.place(places, name, first, *outs, half);
            }
            first += outs;
        }
        Ok(matrix)
    }

    /// Parts for `outs` outputs of `per_out` lines each.
    async fn add(
        &mut self,
        exec: &mut Exec,
        name: &str,
        format: Format,
        mut first: u32,
        outs: u32,
        per_out: u32,
    ) -> Result<()> {
        let bytes = format.words(per_out, self.cols) * 4;
        let have = exec.caps().max_binding.min(exec.caps().max_buffer);
        if bytes > have {
            let next = "Use a device with larger buffers";
            let limit = "maxStorageBufferBindingSize";
            return Err(Error::Limit { what: format!("one line of {name}"), limit, need: bytes, have, next });
        }
        let most = u32::try_from(have / bytes).unwrap_or(u32::MAX);
        let end = first + outs;
        while first < end {
            let outs = most.min(end - first);
            let lines = outs * per_out;
            let buf = exec.alloc(name, format.words(lines, self.cols), Elem::Weights).await?;
            self.parts.push(Part { buf, first, outs, lines, format });
            first += outs;
        }
        Ok(())
    }

    /// The place of a tensor whose lines are outputs `first .. first + outs`. `half` is 1 for the up lines of a gated
    /// pair, else 0.
    fn place(&self, places: &mut Places, name: &str, first: u32, outs: u32, half: u32) {
        let (mut words, mut pairs) = (vec![], vec![]);
        for part in &self.parts {
            let from = first.max(part.first);
            let to = (first + outs).min(part.first + part.outs);
            if from >= to {
                continue;
            }
            let line = u64::from(from - part.first.min(from) + half * part.outs);
            let add = |pieces: &mut Pieces, base: u64, per_line: u32| {
                let per_line = u64::from(per_line);
                pieces.push((part.buf, base + line * per_line, u64::from(to - from) * per_line));
            };
            match part.format {
                Format::Bf16 => add(&mut words, 0, self.cols / 2),
                Format::Quant(q) => {
                    add(&mut words, 0, q.words(self.cols));
                    add(&mut pairs, u64::from(part.lines) * u64::from(q.words(self.cols)), q.groups(self.cols));
                }
            }
        }
        places.matrix(name, self.cols, words, pairs);
    }

    /// Bytes on the device.
    pub fn bytes(&self) -> u64 {
        self.parts.iter().map(|part| part.buf.bytes()).sum()
    }
}

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

    fn matrix(&mut self, name: &str, cols: u32, words: Pieces, pairs: Pieces) {
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

/// A vector of `len` f32 whose tensor is stored as it is.
pub async fn vector(exec: &mut Exec, places: &mut Places, name: String, len: u32) -> Result<Buf> {
    let buf = exec.alloc(&name, len.into(), Elem::F32).await?;
    places.insert(name, Place::Floats(buf, 0, |v| v));
    Ok(buf)
}
