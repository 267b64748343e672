//! DeltaNet (spec 3.5).

use super::{Memory, Run, Scan, Widths};
use crate::Result;
use crate::buf::{Buf, Elem};
use crate::config::DeltaNetDims;
use crate::exec::Exec;
use crate::matrix::Matrix;
use crate::ops;
use crate::place::Places;
use crate::plan::Plan;
use crate::table::{Floats, Group};

/// Epsilon of the head norm: a constant of the architecture (spec 1.1).
const EPS: f32 = 1e-5;

/// Weights of a DeltaNet block.
#[derive(Debug)]
pub struct DeltaNet {
    heads: u32,
    head_dim: u32,
    /// q | k | v | beta.
    qkvb: Matrix,
    /// Convolutions of q | k | v, [3 * heads * head_dim, 4].
    conv: Buf,
    /// Zeros: these convolutions have no bias, but the kernel reads one.
    bias: Buf,
    /// Weight of the head norm, [head_dim].
    norm: Buf,
    out: Matrix,
}

impl DeltaNet {
    /// The tensors of the block: q | k | v | beta, the convolutions, the head norm, out.
    fn table(prefix: &str, dims: &DeltaNetDims, hidden: u32) -> [Group; 4] {
        let DeltaNetDims { heads, head_dim, d_conv } = *dims;
        let width = heads * head_dim;
        let projections =
            [("q_proj.weight", width), ("k_proj.weight", width), ("v_proj.weight", width), ("b_proj.weight", heads)];
        let conv = [width, 1, d_conv];
        let convs: [Floats; 3] =
            [("q_conv1d.weight", &conv, |v| v), ("k_conv1d.weight", &conv, |v| v), ("v_conv1d.weight", &conv, |v| v)];
        [
            Group::reads(prefix, hidden, &projections),
            Group::floats(prefix, "conv", &convs),
            Group::vector(prefix, "o_norm.weight", &[head_dim]),
            Group::writes(prefix, width, "o_proj.weight", hidden),
        ]
    }

    pub(super) fn tensors(prefix: &str, dims: &DeltaNetDims, hidden: u32) -> Vec<Group> {
        Self::table(prefix, dims, hidden).into()
    }

    pub(super) async fn alloc(
        exec: &mut Exec,
        places: &mut Places,
        prefix: &str,
        dims: &DeltaNetDims,
        hidden: u32,
    ) -> Result<DeltaNet> {
        let DeltaNetDims { heads, head_dim, .. } = *dims;
        let [qkvb, conv, norm, out] = Self::table(prefix, dims, hidden);
        let qkvb = qkvb.matrix(exec, places).await?;
        let conv = conv.buffer(exec, places).await?;
        let bias = exec.alloc(&format!("{prefix}bias"), u64::from(3 * heads * head_dim), Elem::F32).await?;
        let norm = norm.buffer(exec, places).await?;
        let out = out.matrix(exec, places).await?;
        Ok(DeltaNet { heads, head_dim, qkvb, conv, bias, norm, out })
    }

    fn channels(&self) -> u32 {
        3 * self.heads * self.head_dim
    }

    fn slot_len(&self) -> u32 {
        4 * self.channels() + self.heads * self.head_dim * self.head_dim
    }

    pub(super) fn mix(&self, plan: &mut Plan, run: &Run, norm: Buf, state: Buf) {
        let s = run.scratch;
        let (rows, slots, slot_len, state_at) = (run.rows, run.slots, self.slot_len(), 4 * self.channels());
        let (heads, head_dim, in_stride) = (self.heads, self.head_dim, self.qkvb.outs);
        run.project(plan, s.x, norm, &self.qkvb, s.p);
        if run.steps {
            let op = ops::DeltaStep { rows, heads, head_dim, in_stride, slots, slot_len, state_at, eps: EPS };
            plan.add(op, &[run.batch, s.p, self.conv, self.norm, state, s.y]);
            return run.add(plan, &self.out, s.y);
        }
        let channels = self.channels();
        let conv = ops::Conv1d { rows, channels, in_stride, in_offset: 0, slots, slot_len };
        plan.add(conv, &[run.batch, s.p, self.conv, self.bias, state, s.c]);
        let tail = ops::ConvTail { rows, channels, in_stride, in_offset: 0, slots, slot_len };
        plan.add(tail, &[run.batch, s.p, state]);
        plan.add(ops::DeltaGates { rows, heads, head_dim, in_stride }, &[s.p, s.c, s.beta]);
        match run.scan {
            Scan::Serial => {
                let op = ops::DeltaSerial { rows, heads, head_dim, slots, slot_len, state_at };
                plan.add(op, &[run.batch, s.c, s.beta, state, s.y]);
            }
            Scan::Chunked if run.coop && head_dim <= ops::DeltaLocal::MAX_HEAD => {
                let local = ops::DeltaLocal { rows, heads, head_dim };
                plan.add(local, &[run.batch, s.c, s.beta, s.wqk, s.u, s.attn]);
                let op = ops::DeltaCarry { rows, heads, head_dim, slots, slot_len, state_at };
                plan.add(op, &[run.batch, s.wqk, s.u, s.attn, state, s.y]);
            }
            Scan::Chunked => {
                plan.add(ops::DeltaWy { rows, heads, head_dim }, &[run.batch, s.c, s.beta, s.w, s.u, s.scores]);
                let op = ops::DeltaChunked { rows, heads, head_dim, slots, slot_len, state_at };
                plan.add(op, &[run.batch, s.c, s.w, s.u, s.scores, state, s.y]);
            }
        }
        let op = ops::RmsNorm { rows: rows * heads, width: head_dim, per_row: heads, eps: EPS, half: run.half };
        plan.add(op, &[s.y, self.norm, run.normed()]);
        run.add(plan, &self.out, run.normed());
    }

    pub(super) fn memory(&self) -> Memory {
        Memory::Fixed(self.slot_len().into())
    }

    pub(super) fn widths(&self) -> Widths {
        let y = self.heads * self.head_dim;
        Widths { p: self.qkvb.outs, c: self.channels(), y, delta: (self.heads, self.head_dim), ..Default::default() }
    }

    /// Bytes of weights on the device.
    pub fn bytes(&self) -> u64 {
        let vectors = self.conv.bytes() + self.bias.bytes() + self.norm.bytes();
        self.qkvb.bytes() + self.out.bytes() + vectors
    }
}
