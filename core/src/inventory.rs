//! The tensors that a configuration calls for, held against those that the files have.

use std::collections::{HashMap, HashSet};

use crate::checkpoint::{Dtype, Header, TensorInfo, shown};
use crate::config::{Activation, BlockKind, Config, Layer, Quantization};
use crate::format::packed::Packed;
use crate::format::{Format, Quant};
use crate::{Error, Result};

/// Embedding of the vocabulary, shape `[vocab_size, hidden_size]`.
pub(crate) const EMBED: &str = "model.embed_tokens.weight";
/// Embedding of the meta tokens, shape `[memory_tokens, hidden_size]`.
pub(crate) const MEMORY: &str = "model.memory_tokens";
/// The output head where it is not the embedding, shape `[vocab_size, hidden_size]`.
pub(crate) const HEAD: &str = "lm_head.weight";

/// The most lines in one [`Error::Tensors`].
const MOST_LINES: usize = 50;

/// A tensor that a configuration calls for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    /// Its name in the checkpoint.
    pub name: String,
    /// Its dimensions, slowest first.
    pub shape: Vec<u64>,
}

impl Expected {
    /// Whether it is a matrix that may be quantised: the weight of a projection, of the embedding or of the head.
    pub fn is_matrix(&self) -> bool {
        self.shape.len() == 2 && self.name.ends_with(".weight")
    }
}

impl Layer {
    /// The block's own tensors: the rest of each name, and its shape (spec 2.1 and 8.2).
    fn weights(&self, hidden: u64) -> Vec<(&'static str, Vec<u64>)> {
        match &self.kind {
            BlockKind::Attention(a) => {
                let [heads, kv, dim] = [a.heads, a.kv_heads, a.head_dim].map(u64::from);
                let mut list = vec![
                    ("q_proj.weight", vec![heads * dim, hidden]),
                    ("k_proj.weight", vec![kv * dim, hidden]),
                    ("v_proj.weight", vec![kv * dim, hidden]),
                    ("o_proj.weight", vec![hidden, heads * dim]),
                ];
                if a.qk_norm_eps.is_some() {
                    list.extend([("q_norm.weight", vec![dim]), ("k_norm.weight", vec![dim])]);
                }
                list
            }
            BlockKind::DeltaNet(d) => {
                let [heads, dim, conv] = [d.heads, d.head_dim, d.d_conv].map(u64::from);
                let width = heads * dim;
                vec![
                    ("q_proj.weight", vec![width, hidden]),
                    ("k_proj.weight", vec![width, hidden]),
                    ("v_proj.weight", vec![width, hidden]),
                    ("b_proj.weight", vec![heads, hidden]),
                    ("q_conv1d.weight", vec![width, 1, conv]),
                    ("k_conv1d.weight", vec![width, 1, conv]),
                    ("v_conv1d.weight", vec![width, 1, conv]),
                    ("o_norm.weight", vec![dim]),
                    ("o_proj.weight", vec![hidden, width]),
                ]
            }
            BlockKind::Mamba2(m) => {
                let [inner, state, heads, conv] = [m.d_inner, m.d_state, m.heads, m.d_conv].map(u64::from);
                let channels = inner + 2 * state;
                vec![
                    ("in_proj.weight", vec![inner + channels + heads, hidden]),
                    ("conv1d.weight", vec![channels, 1, conv]),
                    ("conv1d.bias", vec![channels]),
                    ("A_log", vec![heads]),
                    ("D", vec![heads]),
                    ("dt_bias", vec![heads]),
                    ("norm.weight", vec![inner]),
                    ("out_proj.weight", vec![hidden, inner]),
                ]
            }
            BlockKind::Ffn(f) => {
                let width = u64::from(f.width);
                let mut list = vec![("up_proj.weight", vec![width, hidden]), ("down_proj.weight", vec![hidden, width])];
                if f.act == Activation::Silu {
                    list.insert(0, ("gate_proj.weight", vec![width, hidden]));
                }
                list
            }
        }
    }
}

impl Config {
    /// Every tensor that the model needs, in the order of spec 2.1: the globals, then layer by
    /// layer. `lm_head.weight` is among them only where the head is not tied to the embedding.
    pub fn tensors(&self) -> Vec<Expected> {
        let [vocab, hidden, memory] = [self.vocab_size, self.hidden_size, self.memory_tokens].map(u64::from);
        let mut list = Vec::new();
        let mut add = |name: String, shape: Vec<u64>| list.push(Expected { name, shape });
        if memory > 0 {
            add(MEMORY.into(), vec![memory, hidden]);
        }
        add(EMBED.into(), vec![vocab, hidden]);
        add(self.names.final_norm.into(), vec![hidden]);
        if !self.tie_word_embeddings {
            add(HEAD.into(), vec![vocab, hidden]);
        }
        for layer in &self.layers {
            add(layer.norm.clone(), vec![hidden]);
            for (name, shape) in layer.weights(hidden) {
                add(format!("{}{name}", layer.prefix), shape);
            }
        }
        list
    }

    /// Holds the tables of all files of a checkpoint against this configuration.
    ///
    /// A tied model may bring `lm_head.weight` all the same; its shape must then be right. A matrix with scales beside
    /// it is quantised, as MLX does it: `x.weight` [lines, cols · bits / 32] U32, `x.scales` and `x.biases`
    /// [lines, cols / group] BF16 or F16.
    ///
    /// # Errors
    /// One [`Error::Tensors`] with a line for every dimension that differs, every tensor that is
    /// missing, mis-shaped, of a dtype that is not supported, stored twice, or not part
    /// of the model; the first 50 lines of them.
    pub fn check(&self, tables: &[Header]) -> Result<()> {
        let shapes = Shapes::of(tables, self.quantization.as_ref());
        if self.quantization.is_none() && shapes.tensors.keys().any(|name| name.ends_with(".scales")) {
            let why = "config.json: `quantization` is missing, but the tensors are quantised";
            return Err(Error::Tensors(vec![why.into()]));
        }
        let mut expected = self.tensors();
        if self.tie_word_embeddings && shapes.tensors.contains_key(HEAD) {
            expected.push(Expected { name: HEAD.into(), shape: vec![self.vocab_size.into(), self.hidden_size.into()] });
        }
        let mut lines = Lines::default();
        self.dimensions(&shapes, &mut lines);
        let mut known = HashSet::new();
        for tensor in &expected {
            let parts = match shapes.packed(&tensor.name) {
                None => vec![(tensor.name.clone(), tensor.shape.clone(), &NUMBERS[..])],
                Some((packed, scales)) => quantised(tensor, packed, scales, &mut lines),
            };
            for (name, shape, dtypes) in parts {
                match shapes.tensors.get(name.as_str()) {
                    None => lines.add(|| format!("{name}: missing (shape {shape:?})")),
                    Some(found) if found.shape != shape => {
                        lines.add(|| format!("{name}: has shape {:?}, should have {shape:?}", found.shape));
                    }
                    Some(found) if !dtypes.contains(&found.dtype) => {
                        let all: Vec<_> = dtypes.iter().map(|d| d.name()).collect();
                        lines.add(|| format!("{name}: is {}, should be {}", found.dtype, all.join(" or ")));
                    }
                    Some(_) => {}
                }
                known.insert(name);
            }
        }
        let mut seen = HashSet::new();
        for name in tables.iter().flat_map(|t| &t.tensors).map(|t| t.name.as_str()) {
            if !known.contains(name) {
                lines.add(|| format!("{}: not part of this model", shown(name)));
            } else if !seen.insert(name) {
                lines.add(|| format!("{name}: in more than one file"));
            }
        }
        lines.done()
    }

    /// How the matrices of a checkpoint that [`Config::check`] has passed are stored, those that are not bf16. With
    /// `wanted`, floats are quantised; a matrix whose lines are no multiple of the group stays as it is.
    pub(crate) fn stored(&self, tables: &[Header], wanted: Option<Quant>) -> HashMap<String, Stored> {
        let shapes = Shapes::of(tables, self.quantization.as_ref());
        let stored = |tensor: &Expected| {
            let Expected { name, shape } = tensor;
            if let Some((packed, scales)) = shapes.packed(name) {
                return Some(Stored::Packed(packed, packed.format(scales)));
            }
            let fits = |quant: &Quant| tensor.is_matrix() && shape[1].is_multiple_of(quant.group.into());
            let format = || Format::float(shapes.tensors.get(name.as_str())?.dtype).filter(|f| *f != Format::Bf16);
            wanted.filter(fits).map(Stored::Quantise).or_else(|| format().map(Stored::Floats))
        };
        let matrices = self.tensors().into_iter().filter(|tensor| tensor.shape.len() == 2);
        matrices
            .filter_map(|tensor| Some((stored(&tensor)?, tensor.name)))
            .map(|(stored, name)| (name, stored))
            .collect()
    }

    /// The dimensions that tensors tell too (spec 1.1, "derive"): names the key in config.json,
    /// where the shapes alone would leave the reader guessing. One layer of a kind speaks for all.
    fn dimensions(&self, shapes: &Shapes, lines: &mut Lines) {
        let mut hold = |key: &str, config: u32, tensors: Option<u64>| {
            if let Some(tensors) = tensors.filter(|&t| t != u64::from(config)) {
                lines.add(|| format!("config.json: `{key}` makes {config}, but by the tensors it is {tensors}"));
            }
        };
        hold("vocab_size", self.vocab_size, shapes.vocab_size());
        hold("hidden_size", self.hidden_size, shapes.hidden_size());
        hold("num_memory_tokens", self.memory_tokens, shapes.memory_tokens());
        let first = |kind: fn(&BlockKind) -> bool| self.layers.iter().find(|l| kind(&l.kind));
        if let Some(Layer { prefix, kind: BlockKind::Attention(a), .. }) =
            first(|k| matches!(k, BlockKind::Attention(_)))
        {
            hold(self.names.head_dim, a.head_dim, shapes.head_dim(prefix));
        }
        if let Some(Layer { prefix, kind: BlockKind::Mamba2(m), .. }) = first(|k| matches!(k, BlockKind::Mamba2(_))) {
            hold("mamba_expand", m.d_inner, shapes.d_inner(prefix));
            hold("mamba_d_state", m.d_state, shapes.d_state(prefix));
            hold("mamba2_headdim", m.heads, shapes.ssm_heads(prefix));
        }
        if let Some(Layer { prefix, kind: BlockKind::Ffn(f), .. }) = first(|k| matches!(k, BlockKind::Ffn(_))) {
            hold(self.names.ffn_width, f.width, shapes.ffn_width(prefix));
        }
    }
}

/// The types of tensors that hold numbers.
const NUMBERS: [Dtype; 3] = [Dtype::BF16, Dtype::F16, Dtype::F32];

/// What a quantised matrix consists of: names, shapes and types.
fn quantised(tensor: &Expected, packed: Packed, scales: Dtype, lines: &mut Lines) -> Vec<Part> {
    let Expected { name, shape } = tensor;
    let [outs, cols] = shape[..] else { return vec![] };
    let group = u64::from(packed.group);
    if !cols.is_multiple_of(group) {
        lines.add(|| format!("{name}: its {cols} columns are no multiple of the group, {group}"));
    }
    let (tensors, dtypes) = packed.beside();
    // Scales and biases are of one type.
    let dtypes = dtypes.iter().position(|dtype| *dtype == scales).map_or(dtypes, |at| &dtypes[at..=at]);
    let numbers = (name.clone(), vec![outs, cols * u64::from(packed.bits) / 32], &[Dtype::U32][..]);
    let others = tensors.iter().map(|what| (beside(name, what), vec![outs, cols / group], dtypes));
    std::iter::once(numbers).chain(others).collect()
}

/// Name, shape and possible types of a tensor.
type Part = (String, Vec<u64>, &'static [Dtype]);

/// How a matrix is stored, and what becomes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    /// The file has floats, which stay as they are.
    Floats(Format),
    /// The file has packed numbers and their scales, which become this format.
    Packed(Packed, Format),
    /// The file has floats, which are quantised while they come.
    Quantise(Quant),
}

impl Stored {
    /// The format of the matrix on the device.
    pub(crate) fn format(self) -> Format {
        match self {
            Stored::Floats(format) | Stored::Packed(_, format) => format,
            Stored::Quantise(quant) => Format::Quant(quant),
        }
    }
}

/// The name of a quantised matrix's scales or biases: `x.weight` has `x.scales` and `x.biases`.
pub(crate) fn beside(name: &str, what: &str) -> String {
    format!("{}.{what}", name.strip_suffix(".weight").unwrap_or(name))
}

/// The tensors of all files by name. Where a name occurs twice, the first counts.
pub(crate) struct Shapes<'a> {
    tensors: HashMap<&'a str, &'a TensorInfo>,
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

    /// How a matrix is packed, and the type of its scales: it is if it has scales. Meta tokens and vectors never are.
    fn packed(&self, name: &str) -> Option<(Packed, Dtype)> {
        name.strip_suffix(".weight")?;
        let scales = self.tensors.get(beside(name, "scales").as_str())?;
        Some((self.quantization?.of(name), scales.dtype))
    }

    /// One dimension of a tensor; of a quantised matrix as it would be without.
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

    pub(crate) fn memory_tokens(&self) -> Option<u64> {
        self.dim(MEMORY, 0)
    }

    fn of_block(&self, prefix: &str, name: &str, axis: usize) -> Option<u64> {
        self.dim(&format!("{prefix}{name}"), axis)
    }

    pub(crate) fn ffn_width(&self, prefix: &str) -> Option<u64> {
        self.of_block(prefix, "up_proj.weight", 0)
    }

    /// Known only where queries and keys are normalised.
    pub(crate) fn head_dim(&self, prefix: &str) -> Option<u64> {
        self.of_block(prefix, "q_norm.weight", 0)
    }

    pub(crate) fn d_inner(&self, prefix: &str) -> Option<u64> {
        self.of_block(prefix, "out_proj.weight", 1)
    }

    pub(crate) fn d_state(&self, prefix: &str) -> Option<u64> {
        let channels = self.of_block(prefix, "conv1d.weight", 0)?;
        Some(channels.checked_sub(self.d_inner(prefix)?)? / 2)
    }

    pub(crate) fn ssm_heads(&self, prefix: &str) -> Option<u64> {
        self.of_block(prefix, "A_log", 0)
    }
}

/// The first lines of a long complaint, and how many more there were.
#[derive(Default)]
struct Lines {
    first: Vec<String>,
    more: usize,
}

impl Lines {
    fn add(&mut self, line: impl FnOnce() -> String) {
        if self.first.len() < MOST_LINES {
            self.first.push(line());
        } else {
            self.more += 1;
        }
    }

    fn done(mut self) -> Result<()> {
        if self.first.is_empty() {
            return Ok(());
        }
        if self.more > 0 {
            self.first.push(format!("and {} more", self.more));
        }
        Err(Error::Tensors(self.first))
    }
}
