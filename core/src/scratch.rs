//! Activations: a few named buffers, large enough for the widest plan.

use crate::blocks::Widths;
use crate::buf::{Buf, Elem};
use crate::exec::Exec;
use crate::op::Op;
use crate::{Result, ops};

/// The scratch buffers that all plans share. Every buffer is [rows, width] f32, except where its comment gives another
/// shape.
#[derive(Clone, Copy, Debug)]
pub struct Scratch {
    /// The residual stream, [rows, hidden_size].
    pub x: Buf,
    /// Normalised rows, [rows, widest of hidden_size and the mixers' widths].
    pub h: Buf,
    /// What [`Scratch::h`] and [`Scratch::y`] hold, as f16 divided by 16, where cooperative matrices read it.
    pub half: Buf,
    /// Results of the input projection of a block.
    pub p: Buf,
    /// Results of the convolution.
    pub c: Buf,
    /// Results of the mixer or of the activation, before the output projection.
    pub y: Buf,
    /// DeltaNet's beta, [rows, heads].
    pub beta: Buf,
    /// DeltaNet's W of the WY form, [rows, heads, head_dim].
    pub w: Buf,
    /// DeltaNet's U of the WY form, [rows, heads, head_dim].
    pub u: Buf,
    /// DeltaNet's W, Q and K as f16, where cooperative matrices read them: see [`ops::DeltaLocal`].
    pub wqk: Buf,
    /// DeltaNet's scores within chunks as f16, where cooperative matrices read them.
    pub attn: Buf,
    /// Scores within chunks, for the chunked scans.
    pub scores: Buf,
    /// Mamba2's B and C as f16, [rows, B | C, d_state rounded up to 64].
    pub bc: Buf,
    /// Number of splits of the keys for a step of a single row.
    most_splits: u32,
    /// Number of slots whose keys and values are in one buffer.
    bank: u32,
    /// Unnormalised results of the splits of attention, [rows, heads, splits, head_dim].
    pub parts: Buf,
    /// Maximum score and sum of weights of the splits, [rows, heads, splits, 2].
    pub weights: Buf,
}

impl Scratch {
    /// Allocates buffers for `rows` rows, and for steps of `steps` sequences in `slots` slots of `positions`
    /// positions. `bank` slots share a buffer of keys and values.
    pub async fn alloc(
        exec: &mut Exec,
        rows: u32,
        [steps, slots, bank]: [u32; 3],
        positions: u32,
        hidden: u32,
        blocks: impl Iterator<Item = Widths>,
    ) -> Result<Scratch> {
        let w = blocks.fold(Widths::default(), |a, b| Widths {
            p: a.p.max(b.p),
            c: a.c.max(b.c),
            y: a.y.max(b.y),
            heads: if a.heads.0 * a.heads.1 > b.heads.0 * b.heads.1 { a.heads } else { b.heads },
            delta: if a.delta.0 > b.delta.0 { a.delta } else { b.delta },
            ssd: a.ssd.max(b.ssd),
        });
        let most_splits = most_splits(positions);
        // Rows beyond those of one bank do not reduce the number of splits per row, so all splits together may be more
        // than `ROW_SPLITS`.
        let split = (rows * most_splits).min(ROW_SPLITS).max(steps * splits(steps.min(bank), most_splits)) * w.heads.0;
        let delta = u64::from(rows) * u64::from(w.delta.0 * w.delta.1);
        let local = ops::DeltaLocal { rows, heads: w.delta.0, head_dim: w.delta.1 };
        let is_local = exec.caps().coop(ops::COOP_BYTES) && w.delta.1 <= ops::DeltaLocal::MAX_HEAD;
        let [wqk, u, attn] = if is_local { local.results() } else { [0, delta, 0] };
        let chunk = ops::SsdScores { rows, d_inner: 4, d_state: 4, slots };
        let ssd = if w.ssd > 0 { chunk.lens()[2] } else { 0 };
        let halves = ops::SsdLocal { rows, d_inner: 4, d_state: w.ssd, slots };
        let bc = if w.ssd > 0 && exec.caps().coop(ops::COOP_BYTES) { halves.lens()[3] } else { 0 };
        let scores = ssd.max(u64::from(rows * w.delta.0 * ops::DeltaWy::CHUNK));
        let rows = u64::from(rows);
        Ok(Scratch {
            x: exec.alloc("x", rows * u64::from(hidden), Elem::F32).await?,
            h: exec.alloc("h", rows * u64::from(hidden.max(w.y)), Elem::F32).await?,
            half: exec
                .alloc("half", if exec.caps().coopmat { rows * u64::from(hidden.max(w.y)) } else { 0 }, Elem::F16)
                .await?,
            p: exec.alloc("p", rows * u64::from(w.p), Elem::F32).await?,
            c: exec.alloc("c", rows * u64::from(w.c), Elem::F32).await?,
            y: exec.alloc("y", rows * u64::from(w.y), Elem::F32).await?,
            beta: exec.alloc("beta", rows * u64::from(w.delta.0), Elem::F32).await?,
            w: exec.alloc("w", if is_local { 0 } else { delta }, Elem::F32).await?,
            u: exec.alloc("u", u, Elem::F32).await?,
            wqk: exec.alloc("wqk", wqk, Elem::F16).await?,
            attn: exec.alloc("attn", attn, Elem::F16).await?,
            scores: exec.alloc("scores", scores, Elem::F32).await?,
            bc: exec.alloc("bc", bc, Elem::F16).await?,
            most_splits,
            bank,
            parts: exec.alloc("parts", u64::from(split) * u64::from(w.heads.1), Elem::F32).await?,
            weights: exec.alloc("weights", u64::from(split) * 2, Elem::F32).await?,
        })
    }

    /// Splits of the keys in a plan of this many rows.
    pub fn splits(&self, rows: u32) -> u32 {
        splits(rows.min(self.bank), self.most_splits)
    }

    /// Bytes on the device.
    pub fn bytes(&self) -> u64 {
        let all = [
            self.x,
            self.h,
            self.half,
            self.p,
            self.c,
            self.y,
            self.beta,
            self.w,
            self.u,
            self.wqk,
            self.attn,
            self.scores,
            self.bc,
            self.parts,
        ];
        all.iter().map(Buf::bytes).sum::<u64>() + self.weights.bytes()
    }
}

/// The most splits of all rows together, unless each row has only one.
const ROW_SPLITS: u32 = 256;
/// The most splits of one row.
const MOST_SPLITS: u32 = 64;

/// Number of splits of the keys of each of `rows` rows. Many rows keep a device busy by themselves, so each of them is
/// split less.
fn splits(rows: u32, most: u32) -> u32 {
    (ROW_SPLITS / rows).clamp(1, most)
}

/// Number of splits of the keys in a decode step of one row. It depends on the size of the slot, because grids may not
/// depend on the position. Up to 256 positions there is one split and no dispatch that joins splits. Beyond that there
/// is one split for every 64 positions.
fn most_splits(positions: u32) -> u32 {
    if positions <= 256 { 1 } else { (positions / 64).clamp(2, MOST_SPLITS) }
}
