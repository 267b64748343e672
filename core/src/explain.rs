//! What a decode step costs and why. `nemoflash explain` prints it.

use crate::batch::Size;
use crate::engine::Engine;
use crate::exec::Exec;
use crate::plan::Part;
use serde::Serialize;
use std::collections::BTreeMap;

/// Bytes on the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct DeviceBytes {
    /// Weights.
    pub weights: u64,
    /// The sequence memory of all slots.
    pub arena: u64,
    /// Activations, logits and rotary tables.
    pub scratch: u64,
}

/// The cost of one part of the model in a decode step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PartCost {
    /// The part.
    pub part: Part,
    /// Number of blocks of this part in the model; 1 for parts that are not blocks.
    pub count: usize,
    /// Dispatches of all of these blocks together.
    pub dispatches: usize,
    /// Bytes that all of them move at least.
    pub bytes: u64,
}

/// One kernel of a decode step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KernelUse {
    /// Its name.
    pub name: &'static str,
    /// Number of its dispatches in one step.
    pub dispatches: usize,
    /// The constants of its first dispatch on this device.
    pub constants: String,
    /// Why this kernel is used.
    pub why: &'static str,
}

/// Memory, dispatches and kernels of an engine.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Explain {
    /// The device: an adapter's name and backend, or `cpu`.
    pub device: String,
    /// Dispatches of one decode step of one sequence.
    pub dispatches_per_token: usize,
    /// Bytes that one decode step moves at least.
    pub bytes_per_token: u64,
    /// Memory on the device.
    pub device_bytes: DeviceBytes,
    /// Number of slots (sequences at the same time).
    pub slots: u32,
    /// Tokens of text in each slot.
    pub context: u32,
    /// Number of meta tokens in front of each sequence. Their state is computed once.
    pub meta_tokens: u32,
    /// The format of the head: `bf16`, or bits and group size.
    pub weights: String,
    /// Smallest and largest length of a row of the head. `None` if no weights were loaded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub row_lengths: Option<[f32; 2]>,
    /// Whether logits are divided by these lengths.
    pub divide_logits: bool,
    /// The type of stored keys and values.
    pub kv: String,
    /// How recurrent scans process a long prompt, see [`Scan`](crate::Scan).
    pub prefill_scan: String,
    /// Subgroup size, where subgroup operations are used.
    pub subgroup: Option<u32>,
    /// Whether matrix products of many rows use cooperative matrices.
    pub coopmat: bool,
    /// Cost of each part of the model.
    pub parts: Vec<PartCost>,
    /// The kernels, by name.
    pub kernels: Vec<KernelUse>,
}

impl Engine {
    /// Memory, dispatches and kernels of this engine on its device.
    pub fn explain(&self) -> Explain {
        let one = Size { rows: 1, segments: 1 };
        let caps = self.exec().caps();
        let mut parts: Vec<PartCost> = vec![];
        let mut kernels: BTreeMap<&'static str, KernelUse> = BTreeMap::new();
        let plans = self.decode_plans();
        for step in plans.iter().flat_map(|plan| &plan.steps) {
            let name = step.op.kernel().name;
            let count = self.model().layers.iter().filter(|(_, block)| block.part() == step.part).count().max(1);
            let cost = match parts.iter_mut().find(|cost| cost.part == step.part) {
                Some(cost) => cost,
                None => {
                    parts.push(PartCost { part: step.part, count, dispatches: 0, bytes: 0 });
                    parts.last_mut().expect("just pushed")
                }
            };
            cost.dispatches += 1;
            cost.bytes += step.bytes(one);
            let constants = || {
                let consts = step.op.consts(caps);
                consts.iter().map(|(name, value)| format!("{name} {value}")).collect::<Vec<_>>().join(", ")
            };
            let entry = kernels.entry(name).or_insert_with(|| KernelUse {
                name,
                dispatches: 0,
                constants: constants(),
                why: why(name),
            });
            entry.dispatches += 1;
        }
        let (weights, arena, scratch) = self.device_bytes();
        Explain {
            device: match self.exec() {
                Exec::Gpu(gpu) => format!("{} ({})", gpu.info().name, gpu.info().backend),
                Exec::Cpu(_) => "cpu".into(),
                Exec::Dry(_) => "dry run".into(),
            },
            dispatches_per_token: plans.iter().map(|plan| plan.steps.len()).sum(),
            bytes_per_token: plans.iter().map(|plan| plan.bytes(one)).sum(),
            device_bytes: DeviceBytes { weights, arena, scratch },
            slots: self.options().slots,
            context: self.context(),
            meta_tokens: self.config().meta_tokens,
            weights: self.model().format().to_string(),
            row_lengths: self.model().row_lengths,
            divide_logits: self.config().divide_logits,
            kv: format!("{:?}", self.options().kv).to_lowercase(),
            prefill_scan: self.scan(self.prefill_rows()).to_string(),
            subgroup: caps.subgroup,
            coopmat: caps.coopmat,
            parts,
            kernels: kernels.into_values().collect(),
        }
    }
}

fn why(kernel: &str) -> &'static str {
    match kernel {
        "embed" => "looks the picked token up on the device",
        "matvec_norm" => "one row: the norm in front is finished by the product itself",
        "matvec_gate" | "matvec_relu2" => "one row: norm, products and activation in one dispatch",
        "matvec_add" => "one row: the residual is added by the product itself",
        "matvec_norm_add" => "one row: the gated norm and the residual are part of the product",
        "attention_step" => "rotary embedding, the new key and value, and attention in one dispatch",
        "attention_join" => "joins the splits of a long context",
        "rope_kv" | "attention" => "too many heads share a key head for the one-dispatch step",
        "delta_step" => "convolution, norms and the delta rule in one dispatch",
        "ssd_step" => "convolution, the state's step and the gate in one dispatch",
        "logits" => "final norm, head and each logit's factor in one dispatch",
        "pick_scan" => "one pass over all logits, by as many workgroups as it takes",
        "pick" => "the token is chosen on the device, where the next step reads it",
        _ => "",
    }
}

/// The most dispatches that one block of each part may take in a decode step. A test checks it.
pub const BUDGET: [(Part, usize); 7] = [
    (Part::Embedding, 1),
    (Part::Attention, 4),
    (Part::Mamba2, 3),
    (Part::DeltaNet, 3),
    (Part::Ffn, 2),
    (Part::Head, 1),
    (Part::Pick, 2),
];
