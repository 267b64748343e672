//! Grouped-query attention (spec 3.3).

use super::{Memory, Run, Widths};
use crate::Result;
use crate::buf::{Buf, Elem};
use crate::config::AttentionDims;
use crate::exec::Exec;
use crate::matrix::Matrix;
use crate::names::name;
use crate::ops;
use crate::place::Places;
use crate::plan::Plan;
use crate::table::{Floats, Group};

/// Weights of an attention block.
#[derive(Debug)]
pub struct Attention {
    dims: AttentionDims,
    /// q | k | v.
    qkv: Matrix,
    /// Weights of the q and k norms, [2, head_dim].
    norms: Buf,
    out: Matrix,
}

impl Attention {
    /// The tensors of the block: q | k | v, out, and the norms of q and k if the model has them.
    fn table(prefix: &str, dims: &AttentionDims, hidden: u32) -> [Group; 3] {
        let (q, kv, dim) = (dims.heads * dims.head_dim, dims.kv_heads * dims.head_dim, dims.head_dim);
        let list: [Floats; 2] = [(name::Q_NORM, &[dim], |v| v), ("k_norm.weight", &[dim], |v| v)];
        let norms = if dims.qk_norm_eps.is_some() { &list[..] } else { &[] };
        [
            Group::reads(prefix, hidden, &[("q_proj.weight", q), ("k_proj.weight", kv), ("v_proj.weight", kv)]),
            Group::writes(prefix, q, "o_proj.weight", hidden),
            Group::floats(prefix, "norms", norms),
        ]
    }

    pub(super) fn tensors(prefix: &str, dims: &AttentionDims, hidden: u32) -> Vec<Group> {
        Self::table(prefix, dims, hidden).into()
    }

    pub(super) async fn alloc(
        exec: &mut Exec,
        places: &mut Places,
        prefix: &str,
        dims: &AttentionDims,
        hidden: u32,
    ) -> Result<Attention> {
        let [qkv, out, norms] = Self::table(prefix, dims, hidden);
        let qkv = qkv.matrix(exec, places).await?;
        let out = out.matrix(exec, places).await?;
        let norms = match dims.qk_norm_eps {
            Some(_) => norms.buffer(exec, places).await?,
            // The kernels need a buffer for this binding even if there are no norms.
            None => exec.alloc(&format!("{prefix}norms"), 2 * u64::from(dims.head_dim), Elem::F32).await?,
        };
        Ok(Attention { dims: dims.clone(), qkv, norms, out })
    }

    pub(super) fn mix(&self, plan: &mut Plan, run: &Run, norm: Buf, kv: &[Buf], rotary: Buf) {
        let s = run.scratch;
        let AttentionDims { heads, kv_heads, head_dim, qk_norm_eps, window, .. } = self.dims;
        let (rows, positions, kv_f16) = (run.rows, run.positions, run.kv_f16);
        let (qk_norm, eps) = (qk_norm_eps.is_some().into(), qk_norm_eps.unwrap_or(0.0));
        let window = window.unwrap_or(ops::NO_WINDOW);
        let scale = (f64::from(head_dim)).powf(-0.5) as f32;
        let fused = run.steps && ops::fits_step(heads, kv_heads, head_dim);
        let splits = s.splits(rows);
        let half = run.half && !fused;
        let y = if half { s.half } else { s.y };
        run.project(plan, s.x, norm, &self.qkv, s.p);
        for (&kv, first_slot) in kv.iter().zip((0..).step_by(run.bank as usize)) {
            let slots = run.bank.min(run.slots - first_slot);
            if fused {
                let step = ops::AttentionStep {
                    rows,
                    heads,
                    kv_heads,
                    head_dim,
                    slots,
                    first_slot,
                    positions,
                    window,
                    qk_norm,
                    kv_f16,
                    splits,
                    scale,
                    eps,
                };
                let parts = if splits == 1 { s.y } else { s.parts };
                plan.add(step, &[run.batch, rotary, self.norms, s.p, kv, parts, s.weights]);
                continue;
            }
            let rope =
                ops::RopeKv { rows, heads, kv_heads, head_dim, slots, first_slot, positions, qk_norm, kv_f16, eps };
            plan.add(rope, &[run.batch, rotary, self.norms, s.p, kv]);
            let op = ops::Attention {
                rows,
                heads,
                kv_heads,
                head_dim,
                slots,
                first_slot,
                positions,
                window,
                kv_f16,
                half,
                scale,
            };
            plan.add(op, &[run.batch, s.p, kv, y]);
        }
        if fused && splits > 1 {
            plan.add(ops::AttentionJoin { rows, heads, head_dim, splits }, &[s.parts, s.weights, s.y]);
        }
        run.add(plan, &self.out, y);
    }

    /// The rotary base (`None` without rotary embedding) and the width of a head. Together they select a table of
    /// angles.
    pub fn rotary(&self) -> (Option<f64>, u32) {
        (self.dims.rope.map(|rope| rope.theta), self.dims.head_dim)
    }

    pub(super) fn memory(&self, kv_f16: bool) -> Memory {
        let elem = if kv_f16 { Elem::F16 } else { Elem::F32 };
        Memory::PerPosition(2 * u64::from(self.dims.kv_heads) * u64::from(self.dims.head_dim), elem)
    }

    pub(super) fn widths(&self) -> Widths {
        let y = self.dims.heads * self.dims.head_dim;
        Widths { p: self.qkv.outs, y, heads: (self.dims.heads, self.dims.head_dim), ..Default::default() }
    }

    /// Bytes of weights on the device.
    pub fn bytes(&self) -> u64 {
        self.qkv.bytes() + self.out.bytes() + self.norms.bytes()
    }
}
