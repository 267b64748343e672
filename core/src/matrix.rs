//! Weight matrices on a device, and where a checkpoint's tensors go.

use crate::buf::{Buf, Elem};
use crate::exec::Exec;
use crate::{Error, Result};
use std::collections::HashMap;

/// Lines of a matrix that one binding holds.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    /// The lines, bf16. With a gate: `outs` lines of the gate, then `outs` lines of up.
    pub buf: Buf,
    /// First output.
    pub first: u32,
    /// Outputs.
    pub outs: u32,
}

/// A bf16 matrix [outs, cols], cut into parts where one binding cannot hold it.
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
    /// Room for `outs` outputs; `lines` lines each, 2 for a gated pair.
    pub async fn alloc(exec: &mut Exec, name: &str, outs: u32, cols: u32, lines: u32) -> Result<Matrix> {
        let per_out = u64::from(cols) * u64::from(lines);
        let bytes = per_out * 2;
        let have = exec.caps().max_binding.min(exec.caps().max_buffer);
        if bytes > have {
            let next = "Use a device with larger buffers";
            let limit = "maxStorageBufferBindingSize";
            return Err(Error::Limit { what: format!("one line of {name}"), limit, need: bytes, have, next });
        }
        let most = u32::try_from(have / bytes).unwrap_or(u32::MAX);
        let mut parts = vec![];
        let mut first = 0;
        while first < outs {
            let here = most.min(outs - first);
            let buf = exec.alloc(name, u64::from(here) * per_out, Elem::Bf16).await?;
            parts.push(Part { buf, first, outs: here });
            first += here;
        }
        Ok(Matrix { outs, cols, parts })
    }

    /// The place of a tensor whose lines are outputs `first .. first + outs`. `half` is 1 for the up lines of
    /// a gated pair, else 0.
    pub fn lines(&self, first: u32, outs: u32, half: u32) -> Place {
        let words = u64::from(self.cols) / 2;
        let pieces = self
            .parts
            .iter()
            .filter_map(|part| {
                let from = first.max(part.first);
                let to = (first + outs).min(part.first + part.outs);
                let line = u64::from(from.saturating_sub(part.first) + half * part.outs);
                (from < to).then(|| (part.buf, line * words, u64::from(to - from) * words))
            })
            .collect();
        Place::Lines(pieces)
    }

    /// Bytes on the device.
    pub fn bytes(&self) -> u64 {
        self.parts.iter().map(|part| part.buf.bytes()).sum()
    }
}

/// Where a tensor of the checkpoint goes.
#[derive(Clone, Debug)]
pub enum Place {
    /// Lines of bf16, into pieces of (buffer, word offset, words).
    Lines(Vec<(Buf, u64, u64)>),
    /// Numbers as f32 at an element offset, each through a function.
    Floats(Buf, u64, fn(f64) -> f64),
    /// Read and not kept: a tied head that the file has all the same.
    Nowhere,
}

impl Place {
    /// Numbers that are converted together: two bf16 make a word.
    pub(crate) fn unit(&self) -> usize {
        match self {
            Place::Lines(_) => 2,
            Place::Floats(..) | Place::Nowhere => 1,
        }
    }
}

/// Tensor names and their places.
pub type Places = HashMap<String, Place>;

/// A vector of `len` f32 whose tensor is stored as it is.
pub async fn vector(exec: &mut Exec, places: &mut Places, name: String, len: u32) -> Result<Buf> {
    let buf = exec.alloc(&name, len.into(), Elem::F32).await?;
    places.insert(name, Place::Floats(buf, 0, |v| v));
    Ok(buf)
}
