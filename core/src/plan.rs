//! A plan: the flat list of operators that one step runs, recorded once and replayed.

use crate::batch::Size;
use crate::buf::Buf;
use crate::kernel::Access;
use crate::op::{AnyOp, Op};

/// A part of a model whose cost is told on its own by `explain`, by profiles and in reports of benchmarks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Part {
    /// The look-up of embeddings of tokens and meta tokens.
    Embedding,
    /// Attention blocks.
    Attention,
    /// Mamba2 blocks.
    Mamba2,
    /// DeltaNet blocks.
    DeltaNet,
    /// FFN blocks.
    Ffn,
    /// Final norm and logits.
    Head,
    /// The choice of a token.
    Pick,
    /// Operators that belong to no part of a model.
    #[default]
    Other,
}

impl Part {
    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Part::Embedding => "embedding",
            Part::Attention => "attention",
            Part::Mamba2 => "mamba2",
            Part::DeltaNet => "deltanet",
            Part::Ffn => "ffn",
            Part::Head => "head",
            Part::Pick => "pick",
            Part::Other => "other",
        }
    }
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// One operator with its buffers.
#[derive(Debug)]
pub struct Step {
    /// The operator.
    pub op: Box<dyn AnyOp>,
    /// Its bindings, in order.
    pub bufs: Vec<Buf>,
    /// The part of the model that it belongs to.
    pub part: Part,
}

/// A recorded list of steps. Recording needs no device; [`Exec::prepare`](crate::Exec::prepare) adds what
/// a GPU needs to replay it.
#[derive(Debug, Default)]
pub struct Plan {
    /// The steps in order.
    pub steps: Vec<Step>,
    /// The part of the model that is being recorded.
    pub part: Part,
    pub(crate) prepared: Option<crate::gpu::Prepared>,
}

impl Plan {
    /// Appends an operator.
    ///
    /// # Panics
    /// If the buffers do not fit the operator. This is a bug of the caller; no file or prompt can cause it.
    pub fn add<O: Op>(&mut self, op: O, bufs: &[Buf]) {
        self.push(Box::new(op), bufs);
    }

    /// [`Plan::add`] for an operator as a trait object.
    ///
    /// # Panics
    /// As [`Plan::add`].
    pub fn push(&mut self, op: Box<dyn AnyOp>, bufs: &[Buf]) {
        let kernel = op.kernel();
        let lens = op.lens();
        assert_eq!(bufs.len(), kernel.binds.len(), "{}: number of bindings", kernel.name);
        assert_eq!(lens.len(), kernel.binds.len(), "{}: number of lengths", kernel.name);
        for ((buf, bind), len) in bufs.iter().zip(kernel.binds).zip(&lens) {
            assert_eq!(buf.elem, bind.elem, "{}: element type of {}", kernel.name, bind.name);
            assert!(buf.len >= *len, "{}: {} holds {} of {len} elements", kernel.name, bind.name, buf.len);
            let uses = bufs.iter().filter(|other| other.id == buf.id).count();
            assert!(bind.access == Access::Read || uses == 1, "{}: {} is bound twice", kernel.name, bind.name);
        }
        self.steps.push(Step { op, bufs: bufs.to_vec(), part: self.part });
    }

    /// Bytes that a step of this size moves at least.
    pub fn bytes(&self, size: Size) -> u64 {
        self.steps.iter().map(|step| step.bytes(size)).sum()
    }
}

impl Step {
    /// Bytes that the step moves at least: every binding once, or what the operator says.
    pub fn bytes(&self, size: Size) -> u64 {
        let bound = || self.op.lens().iter().zip(&self.bufs).map(|(len, buf)| buf.elem.words(*len) * 4).sum();
        self.op.bytes(size).unwrap_or_else(bound)
    }
}
