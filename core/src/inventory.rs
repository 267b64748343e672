//! Compares the tensors that a configuration needs with those that the files have.

use std::collections::{HashMap, HashSet};

use crate::checkpoint::{Dtype, Header, TensorInfo, shown};
use crate::config::{BlockKind, Config, Layer, Shapes};
use crate::format::packed::Packed;
use crate::format::{Format, Quant};
use crate::names::{beside, parts};
use crate::place::Stored;
use crate::table::{Group, Tensor};
use crate::{Error, Result};

/// The most lines in one [`Error::Tensors`].
const MOST_LINES: usize = 50;

impl Config {
    /// Every tensor that the model needs, in the order of spec 2.1: first those outside of the layers, then layer by
    /// layer. `lm_head.weight` is listed only if the head is not tied to the embedding.
    pub fn tensors(&self) -> Vec<Tensor> {
        let mut groups = self.ends().in_order();
        for layer in &self.layers {
            groups.push(Group::vector("", &layer.norm, &[self.hidden_size]));
            groups.extend(layer.groups(self.hidden_size));
        }
        groups.into_iter().flat_map(Group::into_tensors).collect()
    }

    /// [`Config::tensors`], and the head if the checkpoint with these headers has one although it is tied.
    pub fn tensors_of(&self, tables: &[Header]) -> Vec<Tensor> {
        self.tensors_in(&Shapes::of(tables, self.quantization.as_ref()))
    }

    fn tensors_in(&self, shapes: &Shapes) -> Vec<Tensor> {
        let mut list = self.tensors();
        if self.tie_word_embeddings && shapes.has_head() {
            list.extend(self.head().into_tensors());
        }
        list
    }

    /// Compares the headers of all files of a checkpoint with this configuration.
    ///
    /// A model with a tied head may have `lm_head.weight` in its files. Its shape must then be right. Tensors that no
    /// model of these families reads are left out. A matrix with scales beside it is quantised, in
    /// the layout of MLX: `x.weight` [lines, cols · bits / 32] U32, `x.scales` and, for integers, `x.biases` [lines,
    /// cols / group].
    ///
    /// # Errors
    /// One [`Error::Tensors`] with a line for every dimension that differs, and for every tensor that is missing, has a
    /// wrong shape or an unsupported dtype, is stored twice, or is not part of the model. It has the first 50 of these
    /// lines.
    pub fn check(&self, tables: &[Header]) -> Result<()> {
        let shapes = Shapes::of(tables, self.quantization.as_ref());
        if self.quantization.is_none() && shapes.tensors.keys().any(|name| name.ends_with(".scales")) {
            let why = "config.json: `quantization` is missing, but the tensors are quantised";
            return Err(Error::Tensors(vec![why.into()]));
        }
        let expected = self.tensors_in(&shapes);
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
        for tensor in tables.iter().flat_map(|t| &t.tensors) {
            let name = tensor.name.as_str();
            if !known.contains(name) && is_unread(tensor) {
                continue;
            }
            if !known.contains(name) {
                lines.add(|| format!("{}: not part of this model", shown(name)));
            } else if !seen.insert(name) {
                lines.add(|| format!("{name}: in more than one file"));
            }
        }
        lines.done()
    }

    /// The names of the tensors of a checkpoint that are not read, in the order of the files. These are buffers that
    /// every loader computes by itself, tensors of another model, and empty tensors.
    pub(crate) fn unread(&self, tables: &[Header]) -> Vec<String> {
        let read: HashSet<String> = self.tensors_of(tables).iter().flat_map(|tensor| parts(&tensor.name)).collect();
        let names = tables.iter().flat_map(|t| &t.tensors).map(|t| &t.name);
        names.filter(|name| !read.contains(*name)).cloned().collect()
    }

    /// How each matrix is stored in a checkpoint that [`Config::check`] has passed. A matrix that is bf16 is not
    /// listed. With `wanted`, matrices of floats are to be quantised, except those whose number of columns is not a
    /// multiple of the group size.
    pub(crate) fn stored(&self, tables: &[Header], wanted: Option<Quant>) -> HashMap<String, Stored> {
        let shapes = Shapes::of(tables, self.quantization.as_ref());
        let stored = |tensor: &Tensor| {
            let Tensor { name, shape, .. } = tensor;
            if let Some((packed, scales)) = shapes.packed(name) {
                return Some(Stored::Packed(packed, packed.format(scales)));
            }
            let fits = |quant: &Quant| tensor.is_matrix() && shape[1].is_multiple_of(quant.group.into());
            let format = || Format::float(shapes.tensors.get(name.as_str())?.dtype).filter(|f| *f != Format::Bf16);
            wanted.filter(fits).map(Stored::Quantise).or_else(|| format().map(Stored::Floats))
        };
        let matrices = self.tensors_in(&shapes).into_iter().filter(|tensor| tensor.shape.len() == 2);
        matrices
            .filter_map(|tensor| Some((stored(&tensor)?, tensor.name)))
            .map(|(stored, name)| (name, stored))
            .collect()
    }

    /// Compares the dimensions that follow from tensor shapes (spec 1.1, "derive") with config.json. The error names
    /// the key in config.json, because wrong shapes alone would not tell the user which key is wrong. Of each kind of
    /// layer, only the first one is compared.
    fn dimensions(&self, shapes: &Shapes, lines: &mut Lines) {
        let mut hold = |key: &str, config: u32, tensors: Option<u64>| {
            if let Some(tensors) = tensors.filter(|&t| t != u64::from(config)) {
                lines.add(|| format!("config.json: `{key}` makes {config}, but by the tensors it is {tensors}"));
            }
        };
        hold("vocab_size", self.vocab_size, shapes.vocab_size());
        hold("hidden_size", self.hidden_size, shapes.hidden_size());
        hold("num_memory_tokens", self.meta_tokens, shapes.meta_tokens());
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

/// Whether a tensor that the model does not list may be left out without changing the results. A tensor inside the
/// model's own modules may not: it might be a bias, a norm or a layer that matters.
fn is_unread(tensor: &TensorInfo) -> bool {
    /// Buffers that some programs save and every loader computes by itself.
    const BUFFERS: [&str; 5] = ["inv_freq", "original_inv_freq", "cos_cached", "sin_cached", "position_ids"];
    let inside = ["model.", "lm_head."].iter().any(|module| tensor.name.starts_with(module));
    let last = tensor.name.rsplit('.').next().unwrap_or_default();
    !inside || tensor.shape.contains(&0) || BUFFERS.contains(&last)
}

/// The dtypes of tensors that are not quantised.
const NUMBERS: [Dtype; 3] = [Dtype::BF16, Dtype::F16, Dtype::F32];

/// The tensors of a quantised matrix: names, shapes and dtypes.
fn quantised(tensor: &Tensor, packed: Packed, scales: Dtype, lines: &mut Lines) -> Vec<Wanted> {
    let Tensor { name, shape, .. } = tensor;
    let [outs, cols] = shape[..] else { return vec![] };
    let group = u64::from(packed.group);
    if !cols.is_multiple_of(group) {
        lines.add(|| format!("{name}: its {cols} columns are no multiple of the group, {group}"));
    }
    let (tensors, dtypes) = packed.beside();
    // Scales and biases must have one dtype.
    let dtypes = dtypes.iter().position(|dtype| *dtype == scales).map_or(dtypes, |at| &dtypes[at..=at]);
    let numbers = (name.clone(), vec![outs, cols * u64::from(packed.bits) / 32], &[Dtype::U32][..]);
    let others = tensors.iter().map(|what| (beside(name, what), vec![outs, cols / group], dtypes));
    std::iter::once(numbers).chain(others).collect()
}

/// Name, shape and possible dtypes of a tensor.
type Wanted = (String, Vec<u64>, &'static [Dtype]);

/// The first lines of a long error message, and how many more there were.
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
