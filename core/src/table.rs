//! The table of a model's tensors: each tensor is listed once, by the block that uses it. The loader, the quantiser, the
//! maker of random weights and `verify` read the names and shapes here, and a trainer will read what touches the residual
//! stream.

use crate::Result;
use crate::buf::{Buf, Elem};
use crate::exec::Exec;
use crate::matrix::Matrix;
use crate::place::{Place, Places};

/// How a matrix touches the residual stream. Training normalises the rows of matrices that read from it and the columns of
/// those that write to it (arXiv 2511.18890, weight normalisation).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Residual {
    /// Its inputs are the residual stream, or its rows are residual vectors (embedding, head).
    Reads,
    /// Its outputs are added to the residual stream.
    Writes,
    /// Neither: convolutions, norms, biases, the parameters of recurrences, meta tokens.
    Apart,
}

/// A tensor that a model has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensor {
    /// Its name in the checkpoint.
    pub name: String,
    /// Its dimensions, slowest first.
    pub shape: Vec<u64>,
    /// How it touches the residual stream.
    pub residual: Residual,
}

impl Tensor {
    /// Whether it is a matrix that may be quantised: the weight of a projection, of the embedding or of the head.
    pub fn is_matrix(&self) -> bool {
        self.shape.len() == 2 && self.name.ends_with(".weight")
    }

    /// Numbers in it.
    pub fn len(&self) -> u64 {
        self.shape.iter().product()
    }

    /// Whether there is no number in it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Tensors that share a matrix or a buffer on the device.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    tensors: Vec<Tensor>,
    kind: Kind,
}

/// A tensor of numbers: its name, its shape, and the function that its numbers go through.
pub(crate) type Floats<'a> = (&'a str, &'a [u32], fn(f64) -> f64);

#[derive(Clone, Debug)]
enum Kind {
    /// Matrices of as many columns, on top of each other.
    Stack,
    /// A gate and its up matrix: a line of both for each output.
    Gated,
    /// Numbers as f32, one tensor behind the other, each through a function. The buffer is called by the name.
    Floats(String, Vec<fn(f64) -> f64>),
}

impl Group {
    /// Matrices `[outs, cols]` on top of each other.
    fn matrices(residual: Residual, prefix: &str, cols: u32, list: &[(&str, u32)], kind: Kind) -> Group {
        let tensors = list.iter().map(|&(name, outs)| Tensor {
            name: format!("{prefix}{name}"),
            shape: vec![outs.into(), cols.into()],
            residual,
        });
        Group { tensors: tensors.collect(), kind }
    }

    /// Matrices `[outs, cols]` on top of each other that read the residual stream.
    pub(crate) fn reads(prefix: &str, cols: u32, list: &[(&str, u32)]) -> Group {
        Self::matrices(Residual::Reads, prefix, cols, list, Kind::Stack)
    }

    /// A matrix `[outs, cols]` that writes to the residual stream.
    pub(crate) fn writes(prefix: &str, cols: u32, name: &str, outs: u32) -> Group {
        Self::matrices(Residual::Writes, prefix, cols, &[(name, outs)], Kind::Stack)
    }

    /// A matrix `[outs, cols]` beside the residual stream: the meta tokens.
    pub(crate) fn apart(cols: u32, name: &str, outs: u32) -> Group {
        Self::matrices(Residual::Apart, "", cols, &[(name, outs)], Kind::Stack)
    }

    /// A gate and its up matrix, `[outs, cols]` both, which read the residual stream.
    pub(crate) fn gated(prefix: &str, cols: u32, names: [&str; 2], outs: u32) -> Group {
        Self::matrices(Residual::Reads, prefix, cols, &names.map(|name| (name, outs)), Kind::Gated)
    }

    /// Numbers as f32, one tensor of the list behind the other.
    pub(crate) fn floats(prefix: &str, name: &str, list: &[Floats]) -> Group {
        let tensors = list.iter().map(|&(name, shape, _)| Tensor {
            name: format!("{prefix}{name}"),
            shape: shape.iter().map(|&n| n.into()).collect(),
            residual: Residual::Apart,
        });
        let maps = list.iter().map(|&(_, _, map)| map).collect();
        Group { tensors: tensors.collect(), kind: Kind::Floats(format!("{prefix}{name}"), maps) }
    }

    /// A tensor of numbers as they are.
    pub(crate) fn vector(prefix: &str, name: &str, shape: &[u32]) -> Group {
        Self::floats(prefix, name, &[(name, shape, |v| v)])
    }

    /// Its tensors, in order.
    pub(crate) fn into_tensors(self) -> Vec<Tensor> {
        self.tensors
    }

    /// Room for matrices, and their places.
    pub(crate) async fn matrix(self, exec: &mut Exec, places: &mut Places) -> Result<Matrix> {
        let cols = self.tensors[0].shape[1] as u32;
        let outs = |tensor: &Tensor| tensor.shape[0] as u32;
        if let Kind::Gated = self.kind {
            let names = [0, 1].map(|i| self.tensors[i].name.clone());
            return Matrix::gated(exec, places, cols, outs(&self.tensors[0]), &names).await;
        }
        let list: Vec<_> = self.tensors.iter().map(|tensor| (tensor.name.clone(), outs(tensor))).collect();
        Matrix::stack(exec, places, cols, &list).await
    }

    /// Room for numbers, and their places.
    pub(crate) async fn buffer(self, exec: &mut Exec, places: &mut Places) -> Result<Buf> {
        let Kind::Floats(name, maps) = self.kind else { unreachable!("a group of matrices has no buffer") };
        let len = self.tensors.iter().map(Tensor::len).sum();
        let buf = exec.alloc(&name, len, Elem::F32).await?;
        let mut at = 0;
        for (tensor, map) in self.tensors.into_iter().zip(maps) {
            let len = tensor.len();
            places.insert(tensor.name, Place::Floats(buf, at, map));
            at += len;
        }
        Ok(buf)
    }
}
