//! Reads the layers of a Nemotron-Flash model from its keys (spec 1.1), and refuses what our kernels do not support.

use super::keys::*;
use super::shapes::Shapes;
use super::types::*;
use crate::Result;

const NAMES: Names =
    Names { final_norm: "model.final_layernorm.weight", ffn_width: "ffn_expand_ratio", head_dim: "kq_head_dim" };
/// Names of the blocks (spec 2.1).
const ATTENTION: &str = "self_attn";
const MAMBA2: &str = "mamba";
const DELTANET: &str = "gla";
const FFN: &str = "ffn";
/// The convolution kernels are written for exactly this many inputs.
const CONV: u32 = 4;
/// Epsilon of the norm of each head of queries and keys: a constant of the reference.
const QK_NORM_EPS: f32 = 1e-5;

pub(super) fn config(keys: &Keys, shapes: &Shapes) -> Result<Config> {
    Reader { keys, shapes }.config()
}

struct Reader<'a> {
    keys: &'a Keys,
    shapes: &'a Shapes<'a>,
}

impl Reader<'_> {
    fn config(&self) -> Result<Config> {
        let Reader { keys, shapes } = self;
        let vocab_size = keys.dim("vocab_size", 1..=MAX_VOCAB, shapes.vocab_size())?;
        let hidden_size = keys.dim("hidden_size", 1..=MAX_HIDDEN, shapes.hidden_size())?;
        fits("hidden_size", "a hidden size", hidden_size, 8, MAX_HIDDEN)?;
        let max_position_embeddings = keys.integer("max_position_embeddings", 1..=MAX_POSITIONS)?.unwrap_or(262_144);
        let meta_tokens = keys.dim("num_memory_tokens", 0..=MAX_POSITIONS, Some(shapes.meta_tokens().unwrap_or(0)))?;
        if meta_tokens >= max_position_embeddings {
            let why = format!("{meta_tokens} leave no room in {max_position_embeddings} positions");
            return Err(bad("num_memory_tokens", why));
        }
        Ok(Config {
            vocab_size,
            hidden_size,
            layers: self.layers(hidden_size, max_position_embeddings)?,
            meta_tokens,
            rms_norm_eps: keys.number("rms_norm_eps", 1e-12..=0.1)?.unwrap_or(1e-6) as f32,
            max_position_embeddings,
            tie_word_embeddings: keys.flag("tie_word_embeddings")?.unwrap_or(false),
            eos: keys.tokens("eos_token_id", vocab_size)?,
            bos: keys.tokens("bos_token_id", vocab_size)?.first().copied(),
            divide_logits: true,
            quantization: None,
            names: NAMES,
        })
    }

    fn layers(&self, hidden: u32, positions: u32) -> Result<Vec<Layer>> {
        let types = self.keys.list("layer_types", MAX_LAYERS as usize)?.ok_or_else(|| missing("layer_types"))?;
        if types.is_empty() {
            return Err(bad("layer_types", "empty"));
        }
        if let Some(n) = self.keys.integer("num_hidden_layers", 0..=u32::MAX)?
            && n as usize != types.len()
        {
            return Err(bad("num_hidden_layers", format!("{n}, but layer_types lists {}", types.len())));
        }
        let extra_ffn = self.intermediate_size()? > 0;
        let mut layers = Vec::new();
        for (index, kind) in (0..).zip(types) {
            let mixer = match kind.as_str() {
                Some("a") => Some((ATTENTION, BlockKind::Attention(self.attention(index, hidden, positions)?))),
                Some("m" | "m2") => Some((MAMBA2, BlockKind::Mamba2(self.mamba2(index, hidden)?))),
                Some("deltanet") => Some((DELTANET, BlockKind::DeltaNet(self.delta_net(hidden)?))),
                Some("f") => None,
                _ => {
                    let why = format!(
                        "entry {index} is {}; known are \"deltanet\", \"m2\", \"m\", \"a\", \"f\"",
                        short(kind)
                    );
                    return Err(bad("layer_types", why));
                }
            };
            let ffn = mixer.is_none() || extra_ffn;
            layers.extend(mixer.map(|(block, kind)| Layer::new(index, "input_layernorm", block, kind)));
            if ffn {
                let kind = BlockKind::Ffn(self.ffn(index, hidden)?);
                layers.push(Layer::new(index, "pre_ffn_layernorm", FFN, kind));
            }
        }
        Ok(layers)
    }

    /// Query heads of attention, and heads of DeltaNet.
    fn heads(&self) -> Result<u32> {
        self.keys.dim("num_attention_heads", 1..=MAX_HEADS, None)
    }

    /// Elements of a head if the heads divide the hidden size between them.
    fn even_head_dim(&self, hidden: u32) -> Result<u32> {
        let heads = self.heads()?;
        if !hidden.is_multiple_of(heads) {
            return Err(bad("num_attention_heads", format!("{heads} heads cannot share a hidden size of {hidden}")));
        }
        fits("num_attention_heads", "a head dimension", hidden / heads, 8, MAX_HEAD_DIM)
    }

    fn attention(&self, index: u32, hidden: u32, positions: u32) -> Result<AttentionDims> {
        let keys = self.keys;
        if let Some(width) = keys.size("attn_hidden_size")?.filter(|&w| w != hidden) {
            let why = format!("{width} is not supported: it must be the hidden size, {hidden}");
            return Err(bad("attn_hidden_size", why));
        }
        let head_dim = match keys.size("kq_head_dim")? {
            Some(dim) => fits("kq_head_dim", "a head dimension", dim, 8, MAX_HEAD_DIM)?,
            None => self.even_head_dim(hidden)?,
        };
        let v_head_dim = match keys.size("v_head_dim")? {
            Some(dim) => dim,
            None => self.even_head_dim(hidden)?,
        };
        if v_head_dim != head_dim {
            let why = format!("{v_head_dim} is not supported: it must be the key's head dimension, {head_dim}");
            return Err(bad("v_head_dim", why));
        }
        let heads = self.heads()?;
        let kv_heads = keys.kv_heads(heads)?;
        let qk_norm_eps = match keys.text("kq_norm")? {
            None | Some("none") => None,
            Some("rms") => Some(QK_NORM_EPS),
            Some(other) => return Err(unsupported("kq_norm", other, "\"none\", \"rms\"")),
        };
        let window = keys.integer("sliding_window", 1..=MAX_POSITIONS)?;
        let global = keys.list("global_attn_idx", MAX_LAYERS as usize)?.unwrap_or_default();
        if let Some(odd) = global.iter().find(|v| !v.is_u64()) {
            return Err(bad("global_attn_idx", format!("{} is not a layer's number", short(odd))));
        }
        let global = global.iter().any(|v| v.as_u64() == Some(index.into()));
        let rope = self.rope(head_dim, positions)?;
        Ok(AttentionDims { heads, kv_heads, head_dim, rope, qk_norm_eps, window: window.filter(|_| !global) })
    }

    /// `rope` has no default: the published class says false, every checkpoint says true, and a wrong guess would only
    /// show as bad text.
    fn rope(&self, head_dim: u32, positions: u32) -> Result<Option<Rope>> {
        let keys = self.keys;
        if !keys.flag("rope")?.ok_or_else(|| missing("rope"))? {
            return Ok(None);
        }
        let theta = keys.rotary("rope_theta", |key| keys.number(key, 1.0..=1e12))?.map_or(10_000.0, |(_, theta)| theta);
        let scale = match keys.rope_type()? {
            None | Some((_, "default")) => 1.0,
            Some((_, "ntk")) => {
                let key = "orig_max_position_embeddings";
                let original = keys.rotary(key, |key| keys.integer(key, 1..=positions))?;
                let (_, original) = original.ok_or_else(|| missing(key))?;
                let (max, original, d) = (f64::from(positions), f64::from(original), f64::from(head_dim));
                (2.0 * max / original - 1.0).powf(d / (d - 2.0))
            }
            Some((key, other)) => return Err(unsupported(&key, other, "null, \"default\", \"ntk\"")),
        };
        Ok(Some(Rope { theta: theta * scale }))
    }

    fn mamba2(&self, index: u32, hidden: u32) -> Result<Mamba2Dims> {
        let Reader { keys, shapes } = self;
        let prefix = prefix(index, MAMBA2);
        let d_inner = match keys.number("mamba_expand", 0.0..=64.0)? {
            Some(expand) => (expand * f64::from(hidden)) as u32,
            None => keys.dim("mamba_expand", 1..=MAX_WIDTH, shapes.d_inner(&prefix))?,
        };
        fits("mamba_expand", "an inner width", d_inner, 8, MAX_WIDTH)?;
        let d_state = keys.dim("mamba_d_state", 1..=u32::MAX, shapes.d_state(&prefix))?;
        fits("mamba_d_state", "a state size", d_state, 4, 256)?;
        let by_shapes = shapes.ssm_heads(&prefix).and_then(|n| u64::from(d_inner).checked_div(n));
        let head_dim = keys.dim("mamba2_headdim", 1..=u32::MAX, by_shapes)?;
        fits("mamba2_headdim", "a head dimension", head_dim, 4, 256)?;
        if !d_inner.is_multiple_of(head_dim) {
            return Err(bad("mamba2_headdim", format!("{head_dim} does not divide the inner width, {d_inner}")));
        }
        let d_conv = keys.integer("mamba_d_conv", 0..=u32::MAX)?.unwrap_or(CONV);
        if d_conv != CONV {
            return Err(bad("mamba_d_conv", format!("{d_conv} is not supported: it must be {CONV}")));
        }
        Ok(Mamba2Dims { d_inner, d_state, heads: d_inner / head_dim, head_dim, d_conv })
    }

    fn delta_net(&self, hidden: u32) -> Result<DeltaNetDims> {
        Ok(DeltaNetDims { heads: self.heads()?, head_dim: self.even_head_dim(hidden)?, d_conv: CONV })
    }

    fn intermediate_size(&self) -> Result<u32> {
        Ok(self.keys.integer("intermediate_size", 0..=MAX_WIDTH)?.unwrap_or(0))
    }

    fn ffn(&self, index: u32, hidden: u32) -> Result<FfnDims> {
        let keys = self.keys;
        let (field, width) = match keys.number("ffn_expand_ratio", 0.0..=64.0)? {
            Some(ratio) => ("ffn_expand_ratio", (ratio * f64::from(hidden)) as u32 / 128 * 128),
            None => match self.intermediate_size()? {
                0 => {
                    let by_shapes = self.shapes.ffn_width(&prefix(index, FFN));
                    ("ffn_expand_ratio", keys.dim("ffn_expand_ratio", 1..=MAX_WIDTH, by_shapes)?)
                }
                width => ("intermediate_size", width),
            },
        };
        fits(field, "an FFN width", width, 8, MAX_WIDTH)?;
        let act = match keys.text("mlp_hidden_act")? {
            None | Some("silu") => Activation::Silu,
            Some("relu2") => Activation::Relu2,
            Some(other) => return Err(unsupported("mlp_hidden_act", other, "\"silu\", \"relu2\"")),
        };
        Ok(FfnDims { width, act })
    }
}
