//! Weight matrices on a device.
//!
//! In names, a row of a matrix is a *line*, because a *row* is a token of a batch in other modules.

use crate::buf::{Buf, Elem};
use crate::exec::Exec;
use crate::format::Format;
use crate::place::{Pieces, Places};
use crate::{Error, Result};

/// A shard of a matrix: rows of the matrix that lie in one binding.
#[derive(Clone, Copy, Debug)]
pub struct Shard {
    /// The numbers of the rows. With a gate: `outs` rows of the gate, then `outs` rows of the up projection.
    pub buf: Buf,
    /// Index of the first output.
    pub first: u32,
    /// Number of outputs.
    pub outs: u32,
    /// Rows of the matrix: `outs`, or twice as many with a gate.
    pub lines: u32,
    /// The format of the rows.
    pub format: Format,
}

/// A matrix [outs, cols], in PyTorch's order: `outs` are the out_features, `cols` the in_features. It is cut into
/// shards where one binding cannot hold it, or where the format changes.
#[derive(Clone, Debug)]
pub struct Matrix {
    /// Outputs (out_features).
    pub outs: u32,
    /// Inputs (in_features).
    pub cols: u32,
    /// The shards in order.
    pub shards: Vec<Shard>,
}

impl Matrix {
    /// Allocates one matrix for tensors [outs, cols] with these names and outs, stacked by rows, and sets the tensors'
    /// places in it.
    pub async fn stack(exec: &mut Exec, places: &mut Places, cols: u32, tensors: &[(String, u32)]) -> Result<Matrix> {
        let tensors: Vec<_> = tensors.iter().map(|(name, outs)| (std::slice::from_ref(name), *outs)).collect();
        Self::alloc(exec, places, cols, &tensors).await
    }

    /// Allocates one matrix for a gate and its up projection, [outs, cols] each, and sets the places of both.
    pub async fn gated(
        exec: &mut Exec,
        places: &mut Places,
        cols: u32,
        outs: u32,
        gate_up: &[String; 2],
    ) -> Result<Matrix> {
        Self::alloc(exec, places, cols, &[(gate_up, outs)]).await
    }

    /// Allocates a matrix. Each entry of `tensors` has some outputs and the tensors that give each of these outputs one
    /// row.
    async fn alloc(exec: &mut Exec, places: &mut Places, cols: u32, tensors: &[(&[String], u32)]) -> Result<Matrix> {
        let mut matrix = Matrix { outs: tensors.iter().map(|(_, outs)| outs).sum(), cols, shards: vec![] };
        let mut first = 0;
        // Neighbouring tensors of one format share their shards.
        for run in tensors.chunk_by(|a, b| places.format(&a.0[0]) == places.format(&b.0[0])) {
            let format = places.format(&run[0].0[0]);
            let name = &run[0].0[0];
            if let Some(other) = run.iter().flat_map(|(names, _)| *names).find(|other| places.format(other) != format) {
                let why = format!("{name} is {format}, but {other} is {}; they must be alike", places.format(other));
                return Err(Error::Tensors(vec![why]));
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

    /// Adds shards for `outs` outputs of `per_out` rows each.
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
            self.shards.push(Shard { buf, first, outs, lines, format });
            first += outs;
        }
        Ok(())
    }

    /// Sets the place of a tensor whose rows belong to the outputs `first .. first + outs`. `half` is 1 for the up
    /// projection of a gated pair, else 0.
    fn place(&self, places: &mut Places, name: &str, first: u32, outs: u32, half: u32) {
        let (mut words, mut pairs) = (vec![], vec![]);
        for shard in &self.shards {
            let from = first.max(shard.first);
            let to = (first + outs).min(shard.first + shard.outs);
            if from >= to {
                continue;
            }
            let line = u64::from(from - shard.first + half * shard.outs);
            let add = |pieces: &mut Pieces, base: u64, per_line: u32| {
                let per_line = u64::from(per_line);
                pieces.push((shard.buf, base + line * per_line, u64::from(to - from) * per_line));
            };
            match shard.format {
                Format::Bf16 | Format::F16 => add(&mut words, 0, self.cols / 2),
                Format::F32 => add(&mut words, 0, self.cols),
                Format::Quant(q) => {
                    add(&mut words, 0, q.words(self.cols));
                    add(&mut pairs, u64::from(shard.lines) * u64::from(q.words(self.cols)), q.group_words(self.cols));
                }
            }
        }
        places.matrix(name, self.cols, words, pairs);
    }

    /// Bytes on the device.
    pub fn bytes(&self) -> u64 {
        self.shards.iter().map(|shard| shard.buf.bytes()).sum()
    }
}
