//! Mamba2 (spec 3.4).

use super::{Memory, Run, Scan, Widths};
use crate::Result;
use crate::buf::Buf;
use crate::config::Mamba2Dims;
use crate::exec::Exec;
use crate::matrix::{Matrix, Shard};
use crate::names::name;
use crate::ops;
use crate::place::Places;
use crate::plan::Plan;
use crate::table::{Floats, Group};

/// Epsilon of the gated norm: a constant of the architecture (spec 1.1).
const EPS: f32 = 1e-5;

/// Weights of a Mamba2 block.
#[derive(Debug)]
pub struct Mamba2 {
    dims: Mamba2Dims,
    /// z | x | B | C | dt.
    in_proj: Matrix,
    /// Convolution of x | B | C, [d_inner + 2 * d_state, 4].
    conv: Buf,
    bias: Buf,
    /// A | D | dt_bias, [3, heads].
    params: Buf,
    /// Weight of the gated norm, [d_inner].
    norm: Buf,
    out: Matrix,
}

impl Mamba2 {
    /// The tensors of the block: z | x | B | C | dt, convolution and bias, A | D | dt_bias, the gated norm, out.
    fn table(prefix: &str, dims: &Mamba2Dims, hidden: u32) -> [Group; 6] {
        let Mamba2Dims { d_inner, d_state, heads, d_conv, .. } = *dims;
        let channels = d_inner + 2 * d_state;
        let params: [Floats; 3] = [
            // The state decays by exp(Δ A) with A = -exp(A_log) (spec 3.4 step 4).
            (name::A_LOG, &[heads], |v| -v.exp()),
            ("D", &[heads], |v| v),
            ("dt_bias", &[heads], |v| v),
        ];
        [
            Group::reads(prefix, hidden, &[("in_proj.weight", d_inner + channels + heads)]),
            Group::vector(prefix, name::CONV, &[channels, 1, d_conv]),
            Group::vector(prefix, "conv1d.bias", &[channels]),
            Group::floats(prefix, "params", &params),
            Group::vector(prefix, "norm.weight", &[d_inner]),
            Group::writes(prefix, d_inner, name::OUT, hidden),
        ]
    }

    pub(super) fn tensors(prefix: &str, dims: &Mamba2Dims, hidden: u32) -> Vec<Group> {
        Self::table(prefix, dims, hidden).into()
    }

    pub(super) async fn alloc(
        exec: &mut Exec,
        places: &mut Places,
        prefix: &str,
        dims: &Mamba2Dims,
        hidden: u32,
    ) -> Result<Mamba2> {
        let [in_proj, conv, bias, params, norm, out] = Self::table(prefix, dims, hidden);
        Ok(Mamba2 {
            dims: dims.clone(),
            in_proj: in_proj.matrix(exec, places).await?,
            conv: conv.buffer(exec, places).await?,
            bias: bias.buffer(exec, places).await?,
            params: params.buffer(exec, places).await?,
            norm: norm.buffer(exec, places).await?,
            out: out.matrix(exec, places).await?,
        })
    }

    fn channels(&self) -> u32 {
        self.dims.d_inner + 2 * self.dims.d_state
    }

    fn slot_len(&self) -> u32 {
        4 * self.channels() + self.dims.d_inner * self.dims.d_state
    }

    pub(super) fn mix(&self, plan: &mut Plan, run: &Run, norm: Buf, state: Buf) {
        let s = run.scratch;
        let (rows, slots, slot_len, state_at) = (run.rows, run.slots, self.slot_len(), 4 * self.channels());
        let Mamba2Dims { d_inner, d_state, heads, head_dim, .. } = self.dims;
        let in_stride = self.in_proj.outs;
        run.project(plan, s.x, norm, &self.in_proj, s.p);
        if run.steps {
            let op = ops::SsdStep { rows, heads, head_dim, d_state, in_stride, slots, slot_len, state_at };
            plan.add(op, &[run.batch, s.p, self.conv, self.bias, self.params, state, s.y]);
            // `y` is gated already. The output projection applies the norm.
            return self.add_normed(plan, run);
        }
        let channels = self.channels();
        let conv = ops::Conv1d { rows, channels, in_stride, in_offset: d_inner, slots, slot_len };
        plan.add(conv, &[run.batch, s.p, self.conv, self.bias, state, s.c]);
        let tail = ops::ConvTail { rows, channels, in_stride, in_offset: d_inner, slots, slot_len };
        plan.add(tail, &[run.batch, s.p, state]);
        match run.scan {
            Scan::Chunked if run.coop && d_state <= ops::SsdCarry::MAX_STATE => {
                plan.add(ops::SsdLocal { rows, d_inner, d_state, slots }, &[run.batch, s.c, s.scores, s.bc]);
                let op = ops::SsdCarry { rows, heads, head_dim, d_state, in_stride, slots, slot_len, state_at };
                plan.add(op, &[run.batch, s.c, s.p, self.params, s.scores, s.bc, state, s.y]);
            }
            Scan::Chunked if d_state <= ops::SsdChunk::MAX_STATE => {
                plan.add(ops::SsdScores { rows, d_inner, d_state, slots }, &[run.batch, s.c, s.scores]);
                let op = ops::SsdChunk { rows, heads, head_dim, d_state, in_stride, slots, slot_len, state_at };
                plan.add(op, &[run.batch, s.c, s.p, self.params, s.scores, state, s.y]);
            }
            _ => {
                let op = ops::SsdSerial { rows, heads, head_dim, d_state, in_stride, slots, slot_len, state_at };
                plan.add(op, &[run.batch, s.c, s.p, self.params, state, s.y]);
            }
        }
        let op = ops::GatedNorm { rows, width: d_inner, z_stride: in_stride, z_offset: 0, eps: EPS, half: run.half };
        plan.add(op, &[s.y, s.p, self.norm, run.normed()]);
        run.add(plan, &self.out, run.normed());
    }

    /// `x += W·RMSNorm(y)`: the output projection with its residual.
    fn add_normed(&self, plan: &mut Plan, run: &Run) {
        let s = run.scratch;
        let (rows, cols, stride) = (run.rows, self.out.cols, self.out.outs);
        if !run.few {
            let op = ops::RmsNorm { rows, width: cols, per_row: 1, eps: EPS, half: run.half };
            plan.add(op, &[s.y, self.norm, run.normed()]);
            return run.add(plan, &self.out, run.normed());
        }
        for shard in &self.out.shards {
            let Shard { first, outs, lines, .. } = *shard;
            let format = shard.format;
            let op = ops::MatvecNormAdd { rows, cols, outs, first, stride, eps: EPS, lines, format };
            plan.add(op, &[shard.buf, s.y, self.norm, s.x]);
        }
    }

    pub(super) fn memory(&self) -> Memory {
        Memory::Fixed(self.slot_len().into())
    }

    pub(super) fn widths(&self) -> Widths {
        Widths {
            p: self.in_proj.outs,
            c: self.channels(),
            y: self.dims.d_inner,
            ssd: self.dims.d_state,
            ..Default::default()
        }
    }

    /// Bytes of weights on the device.
    pub fn bytes(&self) -> u64 {
        let vectors = [self.conv, self.bias, self.params, self.norm].iter().map(Buf::bytes).sum::<u64>();
        self.in_proj.bytes() + self.out.bytes() + vectors
    }
}
