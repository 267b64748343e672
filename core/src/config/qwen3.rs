//! Reads the layers of a dense Qwen3 model from its keys (spec 8.1), and refuses what our kernels do not support.

use super::keys::*;
use super::shapes::Shapes;
use super::types::*;
use crate::Result;
use crate::checkpoint::shown;

const NAMES: Names = Names { final_norm: "model.norm.weight", ffn_width: "intermediate_size", head_dim: "head_dim" };
/// Names of the blocks (spec 8.2).
const ATTENTION: &str = "self_attn";
const FFN: &str = "mlp";

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
        let rms_norm_eps = keys.number("rms_norm_eps", 1e-12..=0.1)?.unwrap_or(1e-6) as f32;
        let max_position_embeddings = keys.integer("max_position_embeddings", 1..=MAX_POSITIONS)?.unwrap_or(32_768);
        let attention = self.attention(rms_norm_eps, max_position_embeddings)?;
        let ffn = self.ffn()?;
        let mut layers = Vec::new();
        for (index, window) in (0..).zip(self.windows()?) {
            let attention = BlockKind::Attention(AttentionDims { window, ..attention.clone() });
            layers.push(Layer::new(index, "input_layernorm", ATTENTION, attention));
            layers.push(Layer::new(index, "post_attention_layernorm", FFN, BlockKind::Ffn(ffn.clone())));
        }
        Ok(Config {
            vocab_size,
            hidden_size,
            layers,
            meta_tokens: 0,
            rms_norm_eps,
            max_position_embeddings,
            tie_word_embeddings: keys.flag("tie_word_embeddings")?.unwrap_or(false),
            eos: keys.tokens("eos_token_id", vocab_size)?,
            bos: keys.tokens("bos_token_id", vocab_size)?.first().copied(),
            divide_logits: false,
            quantization: None,
            names: NAMES,
        })
    }

    /// Attention without a window. The width of a head has its own key, because the heads need not divide the hidden
    /// size between them.
    fn attention(&self, eps: f32, positions: u32) -> Result<AttentionDims> {
        let Reader { keys, shapes } = self;
        if keys.flag("attention_bias")? == Some(true) {
            return Err(bad("attention_bias", "true is not supported: it must be false"));
        }
        let heads = keys.dim("num_attention_heads", 1..=MAX_HEADS, None)?;
        let kv_heads = keys.kv_heads(heads)?;
        let head_dim = keys.dim("head_dim", 1..=u32::MAX, shapes.head_dim(&prefix(0, ATTENTION)))?;
        fits("head_dim", "a head dimension", head_dim, 8, MAX_HEAD_DIM)?;
        let rope = Some(self.rope(positions)?);
        Ok(AttentionDims { heads, kv_heads, head_dim, rope, qk_norm_eps: Some(eps), window: None })
    }

    /// The base has no default, because a wrong guess would only show as bad text.
    fn rope(&self, positions: u32) -> Result<Rope> {
        let keys = self.keys;
        if let Some((key, other)) = keys.rope_type()?.filter(|(_, kind)| *kind != "default") {
            let why = format!(
                "{:?} is not supported: it must be \"default\", for texts of up to {positions} tokens",
                shown(other)
            );
            return Err(bad(&key, why));
        }
        match keys.rotary("rope_theta", |key| keys.number(key, 1.0..=1e12))? {
            Some((_, theta)) => Ok(Rope { theta }),
            None => Err(missing("rope_theta")),
        }
    }

    /// The window of each layer's attention. Qwen3 counts the keys that a query attends to, its own key included.
    fn windows(&self) -> Result<Vec<Option<u32>>> {
        let keys = self.keys;
        let layers = keys.dim("num_hidden_layers", 1..=MAX_LAYERS, None)?;
        let window = match keys.flag("use_sliding_window")? {
            Some(true) => Some(keys.dim("sliding_window", 1..=MAX_POSITIONS, None)? - 1),
            _ => None,
        };
        let Some(types) = keys.list("layer_types", MAX_LAYERS as usize)? else {
            let full = match window {
                Some(_) => keys.dim("max_window_layers", 0..=u32::MAX, None)?,
                None => layers,
            };
            return Ok((0..layers).map(|index| window.filter(|_| index >= full)).collect());
        };
        if types.len() != layers as usize {
            return Err(bad("layer_types", format!("a list of {}, but num_hidden_layers is {layers}", types.len())));
        }
        let each = types.iter().enumerate().map(|(index, kind)| match kind.as_str() {
            Some("full_attention") => Ok(None),
            Some("sliding_attention") if window.is_some() => Ok(window),
            Some("sliding_attention") => {
                let why = format!("entry {index} is \"sliding_attention\", but use_sliding_window is not true");
                Err(bad("layer_types", why))
            }
            _ => {
                let known = "\"full_attention\", \"sliding_attention\"";
                Err(bad("layer_types", format!("entry {index} is {}; known are {known}", short(kind))))
            }
        });
        each.collect()
    }

    fn ffn(&self) -> Result<FfnDims> {
        let Reader { keys, shapes } = self;
        let width = keys.dim("intermediate_size", 1..=MAX_WIDTH, shapes.ffn_width(&prefix(0, FFN)))?;
        fits("intermediate_size", "an FFN width", width, 8, MAX_WIDTH)?;
        match keys.text("hidden_act")? {
            None | Some("silu") => Ok(FfnDims { width, act: Activation::Silu }),
            Some(other) => Err(unsupported("hidden_act", other, "\"silu\"")),
        }
    }
}
