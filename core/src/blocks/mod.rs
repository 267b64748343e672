//! The four kinds of block, each `x += mix(norm(x))`, and what they share: projections in and out.

mod attention;
mod deltanet;
mod ffn;
mod mamba2;

pub use attention::Attention;
pub use deltanet::DeltaNet;
pub use ffn::Ffn;
pub use mamba2::Mamba2;

use crate::buf::{Buf, Elem};
use crate::config::{BlockKind, Layer};
use crate::exec::Exec;
use crate::matrix::{Matrix, Shard};
use crate::ops;
use crate::place::Places;
use crate::plan::{Part, Plan};
use crate::table::Group;
use crate::{Result, scratch::Scratch};

/// How a recurrent scan goes over the tokens of a prompt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scan {
    /// Token by token, state in registers.
    #[default]
    Serial,
    /// By chunks: SSD for Mamba2, the WY form for DeltaNet.
    Chunked,
}

/// The sizes and buffers for which a plan is recorded.
#[derive(Clone, Copy, Debug)]
pub struct Run<'a> {
    /// Rows of the plan.
    pub rows: u32,
    /// Whether the rows are few enough for matrix-vector kernels.
    pub few: bool,
    /// Whether every segment is one row, so that the fused step kernels can be used.
    pub steps: bool,
    /// The scan of longer segments.
    pub scan: Scan,
    /// Keys and values are f16.
    pub kv_f16: bool,
    /// Slots of the arena.
    pub slots: u32,
    /// Number of slots whose keys and values are in one buffer.
    pub bank: u32,
    /// Positions of a slot, meta tokens included.
    pub positions: u32,
    /// Epsilon of the layers' norms.
    pub eps: f32,
    /// Rows and segments.
    pub batch: Buf,
    /// Activations.
    pub scratch: &'a Scratch,
}

impl Run<'_> {
    /// `out[:, ..] = W·RMSNorm(x)`, rows of `out` being `W`'s outputs.
    fn project(&self, plan: &mut Plan, x: Buf, norm: Buf, matrix: &Matrix, out: Buf) {
        let Matrix { outs: stride, cols, shards } = matrix;
        let (rows, cols, stride) = (self.rows, *cols, *stride);
        if !self.few {
            self.norm(plan, x, norm, cols);
        }
        for shard in shards {
            let Shard { first, outs, lines, .. } = *shard;
            let format = shard.format;
            if self.few {
                let op = ops::MatvecNorm { rows, cols, outs, first, stride, eps: self.eps, lines, format };
                plan.add(op, &[shard.buf, x, norm, out]);
            } else {
                let op = ops::Matmul { rows, cols, line: 0, outs, first, stride, lines, format };
                plan.add(op, &[shard.buf, self.scratch.h, out]);
            }
        }
    }

    /// `h = RMSNorm(x)` over the whole width.
    fn norm(&self, plan: &mut Plan, x: Buf, norm: Buf, width: u32) {
        let op = ops::RmsNorm { rows: self.rows, width, per_row: 1, eps: self.eps };
        plan.add(op, &[x, norm, self.scratch.h]);
    }

    /// `x += W·input`: an output projection with its residual.
    fn add(&self, plan: &mut Plan, matrix: &Matrix, input: Buf) {
        let Matrix { outs: stride, cols, shards } = matrix;
        let (rows, cols, stride) = (self.rows, *cols, *stride);
        for shard in shards {
            let Shard { first, outs, lines, .. } = *shard;
            let format = shard.format;
            if self.few {
                let op = ops::MatvecAdd { rows, cols, outs, first, stride, eps: 0.0, lines, format };
                plan.add(op, &[shard.buf, input, self.scratch.x]);
            } else {
                let op = ops::MatmulAdd { rows, cols, line: 0, outs, first, stride, lines, format };
                plan.add(op, &[shard.buf, input, self.scratch.x]);
            }
        }
    }
}

/// What a block remembers of each sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Memory {
    /// Nothing.
    None,
    /// Elements for each position: keys and values.
    PerPosition(u64, Elem),
    /// Number of elements, whatever the position: convolution tail and recurrent state.
    Fixed(u64),
}

/// Width of each scratch buffer that a block needs; 0 where it does not need one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Widths {
    /// Projected row.
    pub p: u32,
    /// Convolved row.
    pub c: u32,
    /// Mixed row, before the output projection.
    pub y: u32,
    /// Attention heads and their width, for the partial results of splits.
    pub heads: (u32, u32),
    /// DeltaNet heads and their width.
    pub delta: (u32, u32),
    /// Whether there is a Mamba2 scan.
    pub ssd: bool,
}

/// Weights of one block.
#[derive(Debug)]
pub enum Block {
    /// Grouped-query attention (spec 3.3).
    Attention(Attention),
    /// Mamba2 (spec 3.4).
    Mamba2(Mamba2),
    /// DeltaNet (spec 3.5).
    DeltaNet(DeltaNet),
    /// Feed-forward network (spec 3.6).
    Ffn(Ffn),
}

impl Layer {
    /// The tensors of the block, in the order of spec 2.1 and 8.2.
    pub(crate) fn groups(&self, hidden: u32) -> Vec<Group> {
        let prefix = &self.prefix;
        match &self.kind {
            BlockKind::Attention(dims) => Attention::tensors(prefix, dims, hidden),
            BlockKind::Mamba2(dims) => Mamba2::tensors(prefix, dims, hidden),
            BlockKind::DeltaNet(dims) => DeltaNet::tensors(prefix, dims, hidden),
            BlockKind::Ffn(dims) => Ffn::tensors(prefix, dims, hidden),
        }
    }
}

impl Block {
    /// Allocates a layer's weights.
    pub async fn alloc(exec: &mut Exec, places: &mut Places, layer: &Layer, hidden: u32) -> Result<Block> {
        let prefix = &layer.prefix;
        Ok(match &layer.kind {
            BlockKind::Attention(dims) => Block::Attention(Attention::alloc(exec, places, prefix, dims, hidden).await?),
            BlockKind::Mamba2(dims) => Block::Mamba2(Mamba2::alloc(exec, places, prefix, dims, hidden).await?),
            BlockKind::DeltaNet(dims) => Block::DeltaNet(DeltaNet::alloc(exec, places, prefix, dims, hidden).await?),
            BlockKind::Ffn(dims) => Block::Ffn(Ffn::alloc(exec, places, prefix, dims, hidden).await?),
        })
    }

    /// Records `x += mix(RMSNorm(x; norm))`. `memory` are the buffers of this block's memory: one, or one for every
    /// [`Run::bank`] slots.
    pub fn mix(&self, plan: &mut Plan, run: &Run, norm: Buf, memory: &[Buf], rotary: Option<Buf>) {
        plan.part = self.part();
        match (self, memory, rotary) {
            (Block::Attention(block), [_, ..], Some(rotary)) => block.mix(plan, run, norm, memory, rotary),
            (Block::Mamba2(block), &[state], _) => block.mix(plan, run, norm, state),
            (Block::DeltaNet(block), &[state], _) => block.mix(plan, run, norm, state),
            (Block::Ffn(block), ..) => block.mix(plan, run, norm),
            _ => unreachable!("the arena has memory for every mixer"),
        }
    }

    /// The part of the model that it is.
    pub fn part(&self) -> Part {
        match self {
            Block::Attention(_) => Part::Attention,
            Block::Mamba2(_) => Part::Mamba2,
            Block::DeltaNet(_) => Part::DeltaNet,
            Block::Ffn(_) => Part::Ffn,
        }
    }

    /// What it remembers.
    pub fn memory(&self, kv_f16: bool) -> Memory {
        match self {
            Block::Attention(block) => block.memory(kv_f16),
            Block::Mamba2(block) => block.memory(),
            Block::DeltaNet(block) => block.memory(),
            Block::Ffn(_) => Memory::None,
        }
    }

    /// Bytes of weights on the device.
    pub fn bytes(&self) -> u64 {
        match self {
            Block::Attention(block) => block.bytes(),
            Block::Mamba2(block) => block.bytes(),
            Block::DeltaNet(block) => block.bytes(),
            Block::Ffn(block) => block.bytes(),
        }
    }

    /// The scratch it needs.
    pub fn widths(&self) -> Widths {
        match self {
            Block::Attention(block) => block.widths(),
            Block::Mamba2(block) => block.widths(),
            Block::DeltaNet(block) => block.widths(),
            Block::Ffn(block) => block.widths(),
        }
    }
}
