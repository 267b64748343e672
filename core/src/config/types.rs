//! The types of a configuration: the model, its layers, and their dimensions.

use super::quantization::Quantization;

/// The description of a model that follows from its `config.json`.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Rows of the embedding and of the head.
    pub vocab_size: u32,
    /// Width of the residual stream.
    pub hidden_size: u32,
    /// The residual sub-layers, in order: each is `x += block(norm(x))`.
    pub layers: Vec<Layer>,
    /// Learned tokens in front of every fresh sequence. May be 0.
    pub meta_tokens: u32,
    /// Epsilon of the layers' norms and of the final norm.
    pub rms_norm_eps: f32,
    /// The longest sequence that the model supports, meta tokens included.
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

/// Names that differ from family to family, except those inside a layer, which [`Layer`] has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Names {
    /// The tensor of the final norm.
    pub final_norm: &'static str,
    /// The key in config.json that sets the width of the FFNs.
    pub ffn_width: &'static str,
    /// The key in config.json that sets the elements of an attention head.
    pub head_dim: &'static str,
}

/// One residual sub-layer. A layer of a checkpoint with a mixer and an FFN becomes two of them.
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
#[non_exhaustive]
pub enum Activation {
    /// `silu(gate x) * up x`.
    Silu,
    /// `relu(up x)^2`, without a gate.
    Relu2,
}

impl Layer {
    /// A sub-layer of layer `index`, with the family's names for the norm and the block.
    pub(super) fn new(index: u32, norm: &str, block: &str, kind: BlockKind) -> Layer {
        Layer { norm: format!("model.layers.{index}.{norm}.weight"), prefix: prefix(index, block), kind }
    }
}

pub(super) fn prefix(index: u32, block: &str) -> String {
    format!("model.layers.{index}.{block}.")
}
