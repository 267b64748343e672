//! The shapes of a checkpoint's tensors, from which dimensions follow (spec 1.1, "derive").

use super::quantization::Quantization;
use crate::checkpoint::{Dtype, Header, TensorInfo};
use crate::format::packed::Packed;
use crate::names::{EMBED, HEAD, META_TOKENS, beside, name};
use std::collections::HashMap;

/// The tensors of all files by name. If a name occurs twice, the first tensor counts.
pub(crate) struct Shapes<'a> {
    pub(crate) tensors: HashMap<&'a str, &'a TensorInfo>,
    quantization: Option<&'a Quantization>,
}

impl<'a> Shapes<'a> {
    pub(crate) fn of(tables: &'a [Header], quantization: Option<&'a Quantization>) -> Self {
        let mut tensors = HashMap::new();
        for t in tables.iter().flat_map(|t| &t.tensors) {
            tensors.entry(t.name.as_str()).or_insert(t);
        }
        Shapes { tensors, quantization }
    }

    /// How a matrix is packed, and the dtype of its scales. A matrix is packed if it has scales. Meta tokens and
    /// vectors never are.
    pub(crate) fn packed(&self, name: &str) -> Option<(Packed, Dtype)> {
        name.strip_suffix(".weight")?;
        let scales = self.tensors.get(beside(name, "scales").as_str())?;
        Some((self.quantization?.of(name), scales.dtype))
    }

    /// Whether there is a head, tied or not.
    pub(crate) fn has_head(&self) -> bool {
        self.tensors.contains_key(HEAD)
    }

    /// One dimension of a tensor. For a packed matrix it is the dimension before packing.
    fn dim(&self, name: &str, axis: usize) -> Option<u64> {
        match self.packed(name) {
            Some((packed, _)) if axis == 1 => {
                self.tensors.get(beside(name, "scales").as_str())?.shape.get(1)?.checked_mul(packed.group.into())
            }
            _ => self.tensors.get(name)?.shape.get(axis).copied(),
        }
    }

    pub(crate) fn vocab_size(&self) -> Option<u64> {
        self.dim(EMBED, 0)
    }

    pub(crate) fn hidden_size(&self) -> Option<u64> {
        self.dim(EMBED, 1)
    }

    pub(crate) fn meta_tokens(&self) -> Option<u64> {
        self.dim(META_TOKENS, 0)
    }

    fn of_block(&self, prefix: &str, name: &str, axis: usize) -> Option<u64> {
        self.dim(&format!("{prefix}{name}"), axis)
    }

    pub(crate) fn ffn_width(&self, prefix: &str) -> Option<u64> {
        self.of_block(prefix, name::UP, 0)
    }

    /// `None` if the model has no norms of queries and keys.
    pub(crate) fn head_dim(&self, prefix: &str) -> Option<u64> {
        self.of_block(prefix, name::Q_NORM, 0)
    }

    pub(crate) fn d_inner(&self, prefix: &str) -> Option<u64> {
        self.of_block(prefix, name::OUT, 1)
    }

    pub(crate) fn d_state(&self, prefix: &str) -> Option<u64> {
        let channels = self.of_block(prefix, name::CONV, 0)?;
        Some(channels.checked_sub(self.d_inner(prefix)?)? / 2)
    }

    pub(crate) fn ssm_heads(&self, prefix: &str) -> Option<u64> {
        self.of_block(prefix, name::A_LOG, 0)
    }
}
