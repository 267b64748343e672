//! The four kinds of blocks, and what they share: projections in and out. Each block computes `x += mix(norm(x))`.

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

/// How a recurrent scan processes the rows of a prompt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scan {
    /// Token by token, with the state in registers.
    #[default]
    Serial,
    /// Chunk by chunk: SSD for Mamba2, the WY form for DeltaNet.
    Chunked,
}

impl std::fmt::Display for Scan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Scan::Serial => "serial",
            Scan::Chunked => "chunked",
        })
    }
}

/// The sizes and buffers that a plan is recorded for.
#[derive(Clone, Copy, Debug)]
pub struct Run<'a> {
    /// Rows of the plan.
    pub rows: u32,
    /// Whether the rows are few enough for matrix-vector kernels.
    pub few: bool,
    /// Whether every segment has one row, so that the fused step kernels can be used.
    pub steps: bool,
    /// Whether the device has cooperative matrices, and room for their operands.
    pub coop: bool,
    /// Whether matrix products take f16, divided by 16, from the kernels in front of them.
    pub half: bool,
    /// The scan for segments of several rows.
    pub scan: Scan,
    /// Whether keys and values are stored as f16.
    pub kv_f16: bool,
    /// Slots of the arena.
    pub slots: u32,
    /// Number of slots whose keys and values are in one buffer.
    pub bank: u32,
    /// Positions of a slot, meta tokens included.
    pub positions: u32,
    /// Epsilon of the layers' norms.
    pub eps: f32,
    /// The batch: rows and segments.
    pub batch: Buf,
    /// Activations.
    pub scratch: &'a Scratch,
}

impl Run<'_> {
    /// Records `out = W·RMSNorm(x)`, with `out` [rows, outs].
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
                let half = self.half;
                let op = ops::Matmul { rows, cols, line: 0, outs, first, stride, lines, format, half };
                plan.add(op, &[shard.buf, self.normed(), out]);
            }
        }
    }

    /// The buffer that holds normalised rows.
    fn normed(&self) -> Buf {
        if self.half { self.scratch.half } else { self.scratch.h }
    }

    /// Records `h = RMSNorm(x)`, with one norm over the whole width, into [`Run::normed`].
    fn norm(&self, plan: &mut Plan, x: Buf, norm: Buf, width: u32) {
        let op = ops::RmsNorm { rows: self.rows, width, per_row: 1, eps: self.eps, half: self.half };
        plan.add(op, &[x, norm, self.normed()]);
    }

    /// Records `x += W·input`: an output projection with its residual.
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
                let half = input.elem == Elem::F16;
                let op = ops::MatmulAdd { rows, cols, line: 0, outs, first, stride, lines, format, half };
                plan.add(op, &[shard.buf, input, self.scratch.x]);
            }
        }
    }
}

/// The sequence memory that a block needs for each sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Memory {
    /// Nothing.
    None,
    /// This many elements for each position: keys and values.
    PerPosition(u64, Elem),
    /// This many f32 for the whole sequence: convolution inputs and recurrent state.
    Fixed(u64),
}

/// Width of each scratch buffer that a block needs, or 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Widths {
    /// Width of `p`: results of the input projection.
    pub p: u32,
    /// Width of `c`: results of the convolution.
    pub c: u32,
    /// Width of `y`: results of the mixer, before the output projection.
    pub y: u32,
    /// Number and width of attention heads, for the results of splits.
    pub heads: (u32, u32),
    /// Number and width of DeltaNet heads.
    pub delta: (u32, u32),
    /// The d_state of a Mamba2 scan.
    pub ssd: u32,
}

/// The weights of one block.
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
    /// Allocates the weights of a layer's block.
    pub async fn alloc(exec: &mut Exec, places: &mut Places, layer: &Layer, hidden: u32) -> Result<Block> {
        let prefix = &layer.prefix;
        Ok(match &layer.kind {
            BlockKind::Attention(dims) => Block::Attention(Attention::alloc(exec, places, prefix, dims, hidden).await?),
            BlockKind::Mamba2(dims) => Block::Mamba2(Mamba2::alloc(exec, places, prefix, dims, hidden).await?),
            BlockKind::DeltaNet(dims) => Block::DeltaNet(DeltaNet::alloc(exec, places, prefix, dims, hidden).await?),
            BlockKind::Ffn(dims) => Block::Ffn(Ffn::alloc(exec, places, prefix, dims, hidden).await?),
        })
    }

    /// Records `x += mix(RMSNorm(x; norm))`. `memory` has the buffers of this block's sequence memory: one, or one for
    /// every [`Run::bank`] slots. `rotary` is the table of angles of an attention block.
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

    /// The part of the model that the block belongs to.
    pub fn part(&self) -> Part {
        match self {
            Block::Attention(_) => Part::Attention,
            Block::Mamba2(_) => Part::Mamba2,
            Block::DeltaNet(_) => Part::DeltaNet,
            Block::Ffn(_) => Part::Ffn,
        }
    }

    /// The sequence memory that the block needs.
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

    /// The scratch buffers that the block needs.
    pub fn widths(&self) -> Widths {
        match self {
            Block::Attention(block) => block.widths(),
            Block::Mamba2(block) => block.widths(),
            Block::DeltaNet(block) => block.widths(),
            Block::Ffn(block) => block.widths(),
        }
    }
}
