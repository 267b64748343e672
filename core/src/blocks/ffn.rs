//! The feed-forward network (spec 3.6).

use super::{Run, Widths};
use crate::Result;
use crate::buf::Buf;
use crate::config::{Activation, FfnDims};
use crate::exec::Exec;
use crate::matrix::{Matrix, Places};
use crate::ops;
use crate::plan::Plan;

/// Weights of a feed-forward network.
#[derive(Debug)]
pub struct Ffn {
    gated: bool,
    /// Gate and up lines in pairs of halves, or up alone.
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
        let name = format!("{prefix}up_proj.weight");
        let up = Matrix::alloc(exec, &name, dims.width, hidden, 1 + u32::from(gated)).await?;
        if gated {
            places.insert(format!("{prefix}gate_proj.weight"), up.lines(0, dims.width, 0));
        }
        places.insert(name, up.lines(0, dims.width, gated.into()));
        let name = format!("{prefix}down_proj.weight");
        let down = Matrix::alloc(exec, &name, hidden, dims.width, 1).await?;
        places.insert(name, down.lines(0, hidden, 0));
        Ok(Ffn { gated, up, down })
    }

    pub(super) fn mix(&self, plan: &mut Plan, run: &Run, norm: Buf) {
        let Matrix { outs: width, cols, parts } = &self.up;
        let (rows, width, cols, eps) = (run.rows, *width, *cols, run.eps);
        let s = run.scratch;
        if run.few() {
            for part in parts {
                let (outs, first, stride) = (part.outs, part.first, width);
                let bufs = [part.buf, s.x, norm, s.y];
                if self.gated {
                    plan.add(ops::MatvecGate { rows, cols, outs, first, stride, eps }, &bufs);
                } else {
                    plan.add(ops::MatvecRelu2 { rows, cols, outs, first, stride, eps }, &bufs);
                }
            }
        } else {
            run.norm(plan, s.x, norm, cols);
            for part in parts {
                let halves = 1 + u32::from(self.gated);
                for half in 0..halves {
                    let (outs, stride) = (part.outs, width * halves);
                    let (line, first) = (half * part.outs, half * width + part.first);
                    plan.add(ops::Matmul { rows, cols, line, outs, first, stride }, &[part.buf, s.h, s.p]);
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
