//! `config.json`, resolved: a description of the model that does not depend on how the file writes it. Spec sections
//! 1 and 3.
//!
//! A config is not trusted: every value that is used is range-checked, and the first one that is not valid is named
//! in an [`Error::Config`]. Keys that nothing here uses are ignored.

mod generation;
mod keys;
mod nemotron_flash;
mod quantization;
mod qwen3;

use serde_json::Value;

use crate::checkpoint::{Header, shown};
use crate::inventory::Shapes;
use crate::json;
use crate::{Error, Result, defaults};
pub use generation::Generation;
use keys::{Architecture, Keys, bad};
pub use quantization::Quantization;

const MAX_FILE: usize = 1 << 20;

/// A model, resolved from its `config.json`.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Rows of the embedding and of the head.
    pub vocab_size: u32,
    /// Width of the residual stream.
    pub hidden_size: u32,
    /// The residual sub-layers, in order: each is `x += block(norm(x))`.
    pub layers: Vec<Layer>,
    /// Learned tokens in front of every fresh sequence. May be 0.
    pub memory_tokens: u32,
    /// Epsilon of the layers' norms and of the final norm.
    pub rms_norm_eps: f32,
    /// The longest sequence that the model was made for, meta tokens included.
    pub max_position_embeddings: u32,
    /// Whether the head is the same matrix as the embedding.
    pub tie_word_embeddings: bool,
    /// Tokens of the vocabulary that end a text. May be empty.
    pub eos: Vec<u32>,
    /// The token of the vocabulary that begins a text, if there is one.
    pub bos: Option<u32>,
    /// Whether each logit is divided by the length of its row of the head (spec 3.7). True for
    /// Nemotron-Flash.
    pub divide_logits: bool,
    /// How matrices are quantised in the checkpoint, if they are.
    pub quantization: Option<Quantization>,
    /// The names that differ from family to family.
    pub names: Names,
}

/// Names that differ from family to family. Those inside a layer are in [`Layer`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Names {
    /// The tensor of the final norm.
    pub final_norm: &'static str,
    /// The key in config.json that sets the width of the FFNs.
    pub ffn_width: &'static str,
    /// The key in config.json that sets the elements of an attention head.
    pub head_dim: &'static str,
}

/// One residual sub-layer. A layer of the checkpoint with a mixer and an FFN is two.
#[derive(Clone, Debug, PartialEq)]
pub struct Layer {
    /// Tensor name of the norm in front of the block.
    pub norm: String,
    /// What the names of the block's own tensors begin with, for example `model.layers.3.ffn.`.
    pub prefix: String,
    /// The block, with its dimensions.
    pub kind: BlockKind,
}

/// What a layer computes.
#[derive(Clone, Debug, PartialEq)]
pub enum BlockKind {
    /// Grouped-query attention (spec 3.3).
    Attention(AttentionDims),
    /// The Mamba2 mixer (spec 3.4), with one group.
    Mamba2(Mamba2Dims),
    /// The DeltaNet mixer (spec 3.5).
    DeltaNet(DeltaNetDims),
    /// The feed-forward network (spec 3.6).
    Ffn(FfnDims),
}

/// Dimensions of an attention block.
#[derive(Clone, Debug, PartialEq)]
pub struct AttentionDims {
    /// Query heads.
    pub heads: u32,
    /// Key and value heads; divides `heads`.
    pub kv_heads: u32,
    /// Elements of one head, the same for queries, keys and values.
    pub head_dim: u32,
    /// Rotary position embedding, if there is any.
    pub rope: Option<Rope>,
    /// Epsilon of the norm of each head's queries and keys, where there is one.
    pub qk_norm_eps: Option<f32>,
    /// How many positions back a query sees: a key exactly this far back is still seen. `None` means all.
    pub window: Option<u32>,
}

/// Rotary position embedding of the whole head; the first half is paired with the second (spec 3.3).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rope {
    /// The base of the frequencies, with NTK scaling already in it.
    pub theta: f64,
}

/// Dimensions of a Mamba2 block. `d_inner = heads * head_dim`.
#[derive(Clone, Debug, PartialEq)]
pub struct Mamba2Dims {
    /// Width of the block's inside.
    pub d_inner: u32,
    /// Elements of the state per inner channel.
    pub d_state: u32,
    /// Heads.
    pub heads: u32,
    /// Inner channels of one head.
    pub head_dim: u32,
    /// Number of inputs that the convolution sees, the current one included.
    pub d_conv: u32,
}

/// Dimensions of a DeltaNet block. `heads * head_dim` is the hidden size.
#[derive(Clone, Debug, PartialEq)]
pub struct DeltaNetDims {
    /// Heads.
    pub heads: u32,
    /// Elements of one head's keys, and of its values.
    pub head_dim: u32,
    /// Number of inputs that each convolution sees, the current one included.
    pub d_conv: u32,
}

/// Dimensions of a feed-forward block.
#[derive(Clone, Debug, PartialEq)]
pub struct FfnDims {
    /// Width of the block's inside.
    pub width: u32,
    /// Its activation.
    pub act: Activation,
}

/// The activation inside an FFN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `silu(gate x) * up x`.
    Silu,
    /// `relu(up x)^2`, without a gate.
    Relu2,
}

impl Layer {
    /// A sub-layer of layer `index`, with the family's names for the norm and the block.
    fn new(index: u32, norm: &str, block: &str, kind: BlockKind) -> Layer {
        Layer { norm: format!("model.layers.{index}.{norm}.weight"), prefix: prefix(index, block), kind }
    }
}

fn prefix(index: u32, block: &str) -> String {
    format!("model.layers.{index}.{block}.")
}

impl Config {
    /// Reads a `config.json` that states every dimension.
    ///
    /// # Errors
    /// [`Error::Config`] names the first field that is missing, of the wrong type, out of range
    /// or not supported, or `(file)` where the text is not a JSON object.
    pub fn parse(json: &[u8]) -> Result<Config> {
        Self::resolve(json, &[])
    }

    /// Reads a `config.json`. Dimensions that it does not state are taken from the shapes of the checkpoint's tensors
    /// (spec 1.1, "derive"). Dimensions that it does state are not compared with the tensors here; [`Config::check`]
    /// does that.
    ///
    /// # Errors
    /// As [`Config::parse`].
    pub fn resolve(json: &[u8], tables: &[Header]) -> Result<Config> {
        if json.len() > MAX_FILE {
            return Err(bad("(file)", format!("{} bytes; at most {MAX_FILE} are possible", json.len())));
        }
        let value = serde_json::from_slice(&json::plain(json));
        let Value::Object(map) = value.map_err(|e| bad("(file)", shown(&e.to_string())))? else {
            return Err(bad("(file)", "not a JSON object"));
        };
        let keys = Keys(map);
        let quantization = quantization::read(&keys)?;
        let shapes = Shapes::of(tables, quantization.as_ref());
        let config = match keys.architecture()? {
            // A further architecture is one arm here, a file like qwen3.rs with its names, and a line in keys.rs.
            Architecture::NemotronFlash => nemotron_flash::config(&keys, &shapes),
            Architecture::Qwen3 => qwen3::config(&keys, &shapes),
        };
        Ok(Config { quantization, ..config? })
    }

    /// Tokens of text that a sequence may have: the wanted ones, or [`defaults::CONTEXT`] where the model allows it.
    ///
    /// # Errors
    /// [`Error::Parameter`] for more than the model was made for.
    pub fn context(&self, wanted: Option<u32>) -> Result<u32> {
        let most = self.max_position_embeddings.saturating_sub(self.memory_tokens).max(1);
        match wanted {
            None => Ok(defaults::CONTEXT.min(most)),
            Some(context) if context <= most => Ok(context),
            Some(context) => {
                let why = format!("{context} is more than the {most} tokens that this model is made for");
                Err(Error::Parameter { name: "context", why })
            }
        }
    }
}
