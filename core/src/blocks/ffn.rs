//! The feed-forward network (spec 3.6).

use super::{Run, Widths};
use crate::Result;
use crate::buf::Buf;
use crate::config::{Activation, FfnDims};
use crate::exec::Exec;
use crate::matrix::{Matrix, Shard};
use crate::names::name;
use crate::ops;
use crate::place::Places;
use crate::plan::Plan;
use crate::table::Group;

/// Weights of a feed-forward network.
#[derive(Debug)]
pub struct Ffn {
    gated: bool,
    /// Rows of the gate and of the up projection, or of the up projection alone.
    up: Matrix,
    down: Matrix,
}

impl Ffn {
    /// The tensors of the block: gate and up, or up alone; then down.
    fn table(prefix: &str, dims: &FfnDims, hidden: u32) -> [Group; 2] {
        let up = match dims.act {
            Activation::Silu => Group::gated(prefix, hidden, ["gate_proj.weight", name::UP], dims.width),
            Activation::Relu2 => Group::reads(prefix, hidden, &[(name::UP, dims.width)]),
        };
        [up, Group::writes(prefix, dims.width, "down_proj.weight", hidden)]
    }

    pub(super) fn tensors(prefix: &str, dims: &FfnDims, hidden: u32) -> Vec<Group> {
        Self::table(prefix, dims, hidden).into()
    }

    pub(super) async fn alloc(
        exec: &mut Exec,
        places: &mut Places,
        prefix: &str,
        dims: &FfnDims,
        hidden: u32,
    ) -> Result<Ffn> {
        let [up, down] = Self::table(prefix, dims, hidden);
        let up = up.matrix(exec, places).await?;
        Ok(Ffn { gated: dims.act == Activation::Silu, up, down: down.matrix(exec, places).await? })
    }

    pub(super) fn mix(&self, plan: &mut Plan, run: &Run, norm: Buf) {
        let Matrix { outs: width, cols, shards } = &self.up;
        let (rows, width, cols, eps) = (run.rows, *width, *cols, run.eps);
        let s = run.scratch;
        if run.few {
            for shard in shards {
                let Shard { first, outs, lines, .. } = *shard;
                let (stride, format) = (width, shard.format);
                let bufs = [shard.buf, s.x, norm, s.y];
                if self.gated {
                    plan.add(ops::MatvecGate { rows, cols, outs, first, stride, eps, lines, format }, &bufs);
                } else {
                    plan.add(ops::MatvecRelu2 { rows, cols, outs, first, stride, eps, lines, format }, &bufs);
                }
            }
        } else {
            run.norm(plan, s.x, norm, cols);
            let parts = 1 + u32::from(self.gated);
            for shard in shards {
                let (stride, lines, format, half) = (width * parts, shard.lines, shard.format, run.half);
                // A shard has rows of the gate, then rows of the up projection. If it is the only one, their outputs follow each
                // other, too, and are computed together.
                let together = if shards.len() == 1 { parts } else { 1 };
                for part in 0..parts / together {
                    let (line, outs, first) = (part * shard.outs, together * shard.outs, part * width + shard.first);
                    let op = ops::Matmul { rows, cols, line, outs, first, stride, lines, format, half };
                    plan.add(op, &[shard.buf, run.normed(), s.p]);
                }
            }
            let y = if run.half { s.half } else { s.y };
            plan.add(ops::FfnAct { rows, width, gated: self.gated.into(), half: run.half }, &[s.p, y]);
            return run.add(plan, &self.down, y);
        }
        run.add(plan, &self.down, s.y);
    }

    pub(super) fn widths(&self) -> Widths {
        Widths { p: self.up.outs * (1 + u32::from(self.gated)), y: self.up.outs, ..Default::default() }
    }

    /// Bytes of weights on the device.
    pub fn bytes(&self) -> u64 {
        self.up.bytes() + self.down.bytes()
    }
}
