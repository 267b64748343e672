//! The operators, one file each, and the list of them.
//!
//! To add an operator: write `shaders/<name>.wgsl` (with a line in `shaders/src/lib.rs`), `core/src/ops/<name>.rs`, and
//! a line in the list below. Tests and benchmarks find it there.

use crate::batch::Batch;
use crate::buf::Elem;
use crate::caps::Caps;
use crate::kernel::{Const, Source};
use crate::op::{AnyOp, Op};
use nemoflash_shaders as wgsl;

/// An operator with one of its examples.
#[derive(Debug)]
pub struct Case {
    /// The operator.
    pub op: Box<dyn AnyOp>,
    /// The rows it runs on.
    pub batch: Batch,
}

impl Case {
    /// Whether a device with these capabilities can run it.
    pub fn runs_on(&self, caps: &Caps) -> bool {
        !self.op.coop_only() || caps.coop(COOP_BYTES)
    }
}

/// The most workgroup memory of operators that need cooperative matrices.
pub(crate) const COOP_BYTES: u32 = 48 << 10;

pub use attention::NO_WINDOW;
pub use attention_step::fits_step;
pub use matvec::{MATVEC_ROWS, few_rows};

/// A number of a buffer of f16.
type Half = half::f16;

/// A number as f16, as kernels with cooperative matrices store it: what is too large becomes the largest number.
fn half(x: f32) -> Half {
    Half::from_f32(x.clamp(-65504.0, 65504.0))
}

/// Rows that a CPU twin writes: f32, or f16 divided by 16 as `lib/rows_f16.wgsl` packs them.
fn put(words: &mut [u32], is_half: bool, at: usize, value: f32) {
    match is_half {
        false => words[at] = value.to_bits(),
        true => bytemuck::cast_slice_mut::<u32, Half>(words)[at] = half(value / 16.0),
    }
}

/// The part of a kernel that packs the rows that it writes, and their type.
const fn row_type(is_half: bool) -> (Source, Elem) {
    match is_half {
        false => (Source::Text(wgsl::ROWS_F32), Elem::F32),
        true => (Source::Text(wgsl::ROWS_F16), Elem::F16),
    }
}

/// `x·σ(x)`, the activation of gates and convolutions.
fn silu(x: f32) -> f32 {
    x / (1.0 + (-x).exp())
}

/// The most threads of a workgroup that shares its work through workgroup memory: a power of 4. A GPU in software gains
/// nothing from many threads. Where a browser has it clear the memory of many threads word by word, it also compiles
/// for seconds.
fn most_threads(caps: &Caps) -> u32 {
    if caps.software { 64 } else { 256 }
}

/// The constants of [`Source::Fold`](crate::kernel::Source::Fold): a workgroup of `lanes` threads, and how many tokens
/// a serial scan takes at a time. A GPU in software gains nothing from several tokens, and compiles longer.
fn fold(lanes: u32, caps: &Caps) -> [Const; 4] {
    let tokens = if caps.software { 1 } else { 4 };
    let wide = u32::from(tokens == 4 && lanes >= 16);
    [("WG", lanes), ("TOKENS", tokens), ("FOLD_WIDE", wide), ("FOLD_NARROW", 1 - wide)]
}

fn cases<O: Op>(list: &mut Vec<Case>) {
    list.extend(O::examples().into_iter().map(|e| Case { op: Box::new(e.op), batch: e.batch }));
}

/// [`examples`], each with the seed of its inputs. The seed depends on the operator and the number of the example
/// within the operator. So a new operator does not change the inputs of the others.
pub fn seeded() -> Vec<(u64, Case)> {
    let mut counts = std::collections::HashMap::new();
    let seed = |case: &Case| {
        let name = case.op.kernel().name;
        let place = counts.entry(name).or_insert(0u64);
        *place += 1;
        // FNV-1a of the name, shifted to make room for the example's index.
        let hash = name.bytes().fold(0x811c_9dc5u32, |hash, b| (hash ^ u32::from(b)).wrapping_mul(0x0100_0193));
        u64::from(hash) << 8 | *place
    };
    let cases = examples();
    let seeds: Vec<_> = cases.iter().map(seed).collect();
    seeds.into_iter().zip(cases).collect()
}

macro_rules! operators {
    ($($module:ident::{$($op:ident),+};)*) => {
        $(mod $module;)*
        $(pub use $module::{$($op),+};)*

        /// Every operator with each of its examples.
        pub fn examples() -> Vec<Case> {
            let mut list = vec![];
            $($(cases::<$op>(&mut list);)+)*
            list
        }
    };
}

mod mamba2;
mod tiles;

operators! {
    conv1d::{Conv1d};
    conv_tail::{ConvTail};
    gated_norm::{GatedNorm};
    ssd_carry::{SsdCarry};
    ssd_chunk::{SsdChunk};
    ssd_local::{SsdLocal};
    ssd_scores::{SsdScores};
    ssd_serial::{SsdSerial};
    ssd_step::{SsdStep};
    embed::{Embed};
    gather_last::{GatherLast};
    pick::{Pick};
    pick_scan::{PickScan};
    rms_norm::{RmsNorm};
    row_norms::{RowNorms};
    random_weights::{RandomWeights};
    matvec::{MatvecNorm, MatvecAdd, MatvecNormAdd, MatvecRelu2, MatvecGate, Logits};
    matmul::{Matmul, MatmulAdd, MatmulLogits};
    ffn_act::{FfnAct};
    rope_kv::{RopeKv};
    attention::{Attention};
    attention_step::{AttentionStep};
    attention_join::{AttentionJoin};
    delta_gates::{DeltaGates};
    delta_serial::{DeltaSerial};
    delta_wy::{DeltaWy};
    delta_chunked::{DeltaChunked};
    delta_local::{DeltaLocal};
    delta_carry::{DeltaCarry};
    delta_step::{DeltaStep};
}
