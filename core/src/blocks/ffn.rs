//! The feed-forward network (spec 3.6).

use super::{Run, Widths};
use crate::Result;
use crate::buf::Buf;
use crate::config::{Activation, FfnDims};
use crate::exec::Exec;
use crate::matrix::{Matrix, Part};
use crate::ops;
use crate::place::Places;
use crate::plan::Plan;

/// Weights of a feed-forward network.
#[derive(Debug)]
pub struct Ffn {
    gated: bool,
    /// The gate's and the up projection's rows, or the up projection's alone.
    up: Matrix,
    down: Matrix,
}

impl Ffn {
    pub(super) async fn alloc(
        exec: &mut Exec,
        places: &mut Places,
        prefix: &str,
        dims: &FfnDims,
        hidden: u32,
    ) -> Result<Ffn> {
        let gated = dims.act == Activation::Silu;
        let [gate, up, down] = ["gate", "up", "down"].map(|name| format!("{prefix}{name}_proj.weight"));
        let up = match gated {
            true => Matrix::gated(exec, places, hidden, dims.width, &[gate, up]).await?,
            false => Matrix::stack(exec, places, hidden, &[(up, dims.width)]).await?,
        };
        let down = Matrix::stack(exec, places, dims.width, &[(down, hidden)]).await?;
        Ok(Ffn { gated, up, down })
    }

    pub(super) fn mix(&self, plan: &mut Plan, run: &Run, norm: Buf) {
        let Matrix { outs: width, cols, parts } = &self.up;
        let (rows, width, cols, eps) = (run.rows, *width, *cols, run.eps);
        let s = run.scratch;
        if run.few {
            for part in parts {
                let Part { first, outs, lines, .. } = *part;
                let (stride, format) = (width, part.format.code());
                let bufs = [part.buf, s.x, norm, s.y];
                if self.gated {
                    plan.add(ops::MatvecGate { rows, cols, outs, first, stride, eps, lines, format }, &bufs);
                } else {
                    plan.add(ops::MatvecRelu2 { rows, cols, outs, first, stride, eps, lines, format }, &bufs);
                }
            }
        } else {
            run.norm(plan, s.x, norm, cols);
            for part in parts {
                let halves = 1 + u32::from(self.gated);
                for half in 0..halves {
                    let (outs, stride, lines, format) = (part.outs, width * halves, part.lines, part.format.code());
                    let (line, first) = (half * part.outs, half * width + part.first);
                    let op = ops::Matmul { rows, cols, line, outs, first, stride, lines, format };
                    plan.add(op, &[part.buf, s.h, s.p]);
                }
            }
            plan.add(ops::FfnAct { rows, width, gated: self.gated.into() }, &[s.p, s.y]);
        }
        run.add(plan, &self.down, s.y);
    }

    pub(super) fn widths(&self) -> Widths {
        Widths { p: self.up.outs * (1 + u32::from(self.gated)), y: self.up.outs, ..Default::default() }
    }

    /// Bytes on the device.
    pub fn bytes(&self) -> u64 {
        self.up.bytes() + self.down.bytes()
    }
}
