//! The table of a model's tensors. Each tensor is listed once, by the block that uses it. The loader, the quantiser,
//! the maker of random weights and `verify` read names and shapes here. [`Residual`] is for training, which treats a
//! matrix by how it touches the residual stream.

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
    /// It reads the residual stream, or its rows are residual vectors (embedding, head).
    Reads,
    /// Its outputs are added to the residual stream.
    Writes,
    /// Neither: convolutions, norms, biases, parameters of recurrences, meta tokens.
    Apart,
}

/// A tensor of a model.
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

    /// Number of elements.
    pub fn len(&self) -> u64 {
        self.shape.iter().product()
    }

    /// Whether it has no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Tensors that share one matrix or one buffer on the device.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    tensors: Vec<Tensor>,
    kind: Kind,
}

/// A tensor whose elements are stored as f32: its name, its shape, and the function that maps each element.
pub(crate) type Floats<'a> = (&'a str, &'a [u32], fn(f64) -> f64);

#[derive(Clone, Debug)]
enum Kind {
    /// Matrices with the same number of columns, stacked by rows.
    Stack,
    /// A gate matrix and its up matrix. Each output needs one row of both.
    Gated,
    /// Vectors as f32, one after the other in one buffer of this name. Each has a function that maps its elements.
    Floats(String, Vec<fn(f64) -> f64>),
}

impl Group {
    /// Matrices `[outs, cols]`, stacked by rows.
    fn matrices(residual: Residual, prefix: &str, cols: u32, list: &[(&str, u32)], kind: Kind) -> Group {
        let tensors = list.iter().map(|&(name, outs)| Tensor {
            name: format!("{prefix}{name}"),
            shape: vec![outs.into(), cols.into()],
            residual,
        });
        Group { tensors: tensors.collect(), kind }
    }

    /// Matrices `[outs, cols]` that read the residual stream, stacked by rows.
    pub(crate) fn reads(prefix: &str, cols: u32, list: &[(&str, u32)]) -> Group {
        Self::matrices(Residual::Reads, prefix, cols, list, Kind::Stack)
    }

    /// A matrix `[outs, cols]` that writes to the residual stream.
    pub(crate) fn writes(prefix: &str, cols: u32, name: &str, outs: u32) -> Group {
        Self::matrices(Residual::Writes, prefix, cols, &[(name, outs)], Kind::Stack)
    }

    /// A matrix `[outs, cols]` that neither reads nor writes the residual stream: the meta tokens.
    pub(crate) fn apart(cols: u32, name: &str, outs: u32) -> Group {
        Self::matrices(Residual::Apart, "", cols, &[(name, outs)], Kind::Stack)
    }

    /// A gate matrix and its up matrix, `[outs, cols]` each, which read the residual stream.
    pub(crate) fn gated(prefix: &str, cols: u32, names: [&str; 2], outs: u32) -> Group {
        Self::matrices(Residual::Reads, prefix, cols, &names.map(|name| (name, outs)), Kind::Gated)
    }

    /// Tensors that are stored as f32 in one buffer `name`, in the order of the list.
    pub(crate) fn floats(prefix: &str, name: &str, list: &[Floats]) -> Group {
        let tensors = list.iter().map(|&(name, shape, _)| Tensor {
            name: format!("{prefix}{name}"),
            shape: shape.iter().map(|&n| n.into()).collect(),
            residual: Residual::Apart,
        });
        let maps = list.iter().map(|&(_, _, map)| map).collect();
        Group { tensors: tensors.collect(), kind: Kind::Floats(format!("{prefix}{name}"), maps) }
    }

    /// One tensor that is stored as f32, with its elements unchanged.
    pub(crate) fn vector(prefix: &str, name: &str, shape: &[u32]) -> Group {
        Self::floats(prefix, name, &[(name, shape, |v| v)])
    }

    /// The tensors of the group, in order.
    pub(crate) fn into_tensors(self) -> Vec<Tensor> {
        self.tensors
    }

    /// Allocates the matrix of the group, and sets the places of its tensors.
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

    /// Allocates the buffer of the group, and sets the places of its tensors.
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
