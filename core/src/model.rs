//! The model: embedding, a list of (norm, block), final norm, head.

use crate::blocks::{Block, Run};
use crate::buf::{Buf, Elem};
use crate::config::Config;
use crate::exec::Exec;
use crate::format::Format;
use crate::matrix::{Matrix, Shard};
use crate::names::{EMBED, HEAD, META_TOKENS};
use crate::ops;
use crate::place::Places;
use crate::plan::{Part, Plan};
use crate::table::Group;
use crate::{Error, Result};

/// The weights of a whole model on a device.
#[derive(Debug)]
pub struct Model {
    /// The configuration.
    pub config: Config,
    /// Embedding of the vocabulary [vocab_size, hidden_size].
    embedding: Matrix,
    /// Embedding of the meta tokens [meta_tokens, hidden_size], if the model has any.
    meta_tokens: Option<Matrix>,
    /// Norm weight and block of each layer.
    pub(crate) layers: Vec<(Buf, Block)>,
    /// Weight of the final norm.
    norm: Buf,
    /// The head, if it is not tied to the embedding.
    head: Option<Matrix>,
    /// The factor of each logit, [vocab_size].
    logit_scale: Buf,
    /// Smallest and largest length of a row of the head (spec 3.7). `None` until the weights are loaded. If all lengths
    /// are 1, dividing logits by them changes nothing.
    pub row_lengths: Option<[f32; 2]>,
}

/// The tensors outside of the layers.
pub(crate) struct Ends {
    meta_tokens: Option<Group>,
    embedding: Group,
    norm: Group,
    head: Option<Group>,
}

impl Ends {
    /// The tensors in the order of spec 2.1.
    pub(crate) fn in_order(self) -> Vec<Group> {
        [self.meta_tokens, Some(self.embedding), Some(self.norm), self.head].into_iter().flatten().collect()
    }
}

impl Config {
    /// The tensors outside of the layers: meta tokens, embedding, final norm, and the head if it is not tied.
    pub(crate) fn ends(&self) -> Ends {
        let Config { vocab_size, hidden_size, meta_tokens, .. } = *self;
        Ends {
            meta_tokens: (meta_tokens > 0).then(|| Group::apart(hidden_size, META_TOKENS, meta_tokens)),
            embedding: Group::reads("", hidden_size, &[(EMBED, vocab_size)]),
            norm: Group::vector("", self.names.final_norm, &[hidden_size]),
            head: (!self.tie_word_embeddings).then(|| self.head()),
        }
    }

    /// The head, whether it is tied or not.
    pub(crate) fn head(&self) -> Group {
        Group::reads("", self.hidden_size, &[(HEAD, self.vocab_size)])
    }
}

impl Model {
    /// Allocates every weight, and sets the place of every tensor.
    pub(crate) async fn alloc(exec: &mut Exec, config: Config, mut places: Places) -> Result<(Model, Places)> {
        let Config { vocab_size, hidden_size, .. } = config;
        let ends = config.ends();
        let embedding = ends.embedding.matrix(exec, &mut places).await?;
        let meta_tokens = match ends.meta_tokens {
            None => None,
            Some(meta_tokens) => Some(meta_tokens.matrix(exec, &mut places).await?),
        };
        let norm = ends.norm.buffer(exec, &mut places).await?;
        let head = match ends.head {
            None => {
                places.ignore(HEAD);
                None
            }
            Some(head) => Some(head.matrix(exec, &mut places).await?),
        };
        let mut layers = Vec::with_capacity(config.layers.len());
        for layer in &config.layers {
            let norm = Group::vector("", &layer.norm, &[hidden_size]).buffer(exec, &mut places).await?;
            layers.push((norm, Block::alloc(exec, &mut places, layer, hidden_size).await?));
        }
        let logit_scale = exec.alloc("logit_scale", vocab_size.into(), Elem::F32).await?;
        Ok((Model { config, embedding, meta_tokens, layers, norm, head, logit_scale, row_lengths: None }, places))
    }

    /// Allocates a head beside the embedding, where the head turned out not to be the embedding.
    pub(crate) async fn untie(&mut self, exec: &mut Exec, places: &mut Places) -> Result<()> {
        self.config.tie_word_embeddings = false;
        self.head = Some(self.config.head().matrix(exec, places).await?);
        Ok(())
    }

    /// Computes what depends only on the loaded weights: the lengths of the head's rows (spec 3.7) and the factor of
    /// each logit.
    pub(crate) async fn finish(&mut self, exec: &mut Exec) -> Result<()> {
        let total = self.config.vocab_size;
        let mut plan = Plan::default();
        for shard in &self.head().shards {
            let (lines, cols, format) = (shard.lines, self.config.hidden_size, shard.format);
            let op = ops::RowNorms { lines, cols, first: shard.first, total, format };
            plan.add(op, &[shard.buf, self.logit_scale]);
        }
        exec.prepare(&mut plan).await?;
        let size = crate::batch::Size { rows: 1, segments: 1 };
        let ticket = exec.submit(&[(&plan, size)], Some((self.logit_scale, total.into())))?;
        let factors = exec.collect(ticket).await?;
        let lengths = factors.iter().map(|&word| 1.0 / f32::from_bits(word));
        self.row_lengths = Some(lengths.fold([f32::MAX, 0.0], |[low, high], l| [low.min(l), high.max(l)]));
        if !self.config.divide_logits {
            exec.write(self.logit_scale, 0, &vec![1f32.to_bits(); total as usize]);
        }
        Ok(())
    }

    fn head(&self) -> &Matrix {
        self.head.as_ref().unwrap_or(&self.embedding)
    }

    /// Records the forward pass up to the final norm. The residual stream is in `x` of the scratch buffers. Only the
    /// `layers` with these indices run. `memories` has the sequence memory and the rotary table of each layer of the
    /// model.
    pub(crate) fn forward(
        &self,
        plan: &mut Plan,
        run: &Run,
        picked: Buf,
        layers: &[usize],
        memories: &[(&[Buf], Option<Buf>)],
    ) {
        let Config { vocab_size, hidden_size: cols, .. } = self.config;
        plan.part = Part::Embedding;
        // The ids of meta tokens follow those of the vocabulary. Decode steps never contain meta tokens.
        let meta_tokens = self.meta_tokens.iter().filter(|_| !run.steps).map(|meta_tokens| (meta_tokens, vocab_size));
        for (table, from) in meta_tokens.chain([(&self.embedding, 0)]) {
            for shard in &table.shards {
                let (first, lines, format) = (from + shard.first, shard.lines, shard.format);
                let op = ops::Embed { rows: run.rows, cols, first, lines, slots: run.slots, format };
                plan.add(op, &[run.batch, picked, shard.buf, run.scratch.x]);
            }
        }
        for &layer in layers {
            let ((norm, block), (memory, rotary)) = (&self.layers[layer], memories[layer]);
            block.mix(plan, run, *norm, memory, rotary);
        }
    }

    /// Records logits [rows, vocab_size] of `rows` rows of `x`. `h` [rows, hidden_size] is scratch. `few` selects
    /// matrix-vector kernels.
    pub(crate) fn logits(&self, plan: &mut Plan, rows: u32, few: bool, x: Buf, h: Buf, logits: Buf) {
        let Config { vocab_size: stride, hidden_size: cols, rms_norm_eps: eps, .. } = self.config;
        plan.part = Part::Head;
        if !few {
            plan.add(ops::RmsNorm { rows, width: cols, per_row: 1, eps, half: false }, &[x, self.norm, h]);
        }
        for shard in &self.head().shards {
            let Shard { first, outs, lines, .. } = *shard;
            let format = shard.format;
            if few {
                let op = ops::Logits { rows, cols, outs, first, stride, eps, lines, format };
                plan.add(op, &[shard.buf, x, self.norm, self.logit_scale, logits]);
            } else {
                let op = ops::MatmulLogits { rows, cols, line: 0, outs, first, stride, lines, format, half: false };
                plan.add(op, &[shard.buf, h, self.logit_scale, logits]);
            }
        }
    }

    /// The format of the head.
    pub fn format(&self) -> Format {
        self.head().shards.first().map_or(Format::Bf16, |shard| shard.format)
    }

    /// Bytes of all weights on the device.
    pub fn bytes(&self) -> u64 {
        let tables = [Some(&self.embedding), self.meta_tokens.as_ref(), self.head.as_ref()];
        let ends =
            tables.iter().flatten().map(|m| m.bytes()).sum::<u64>() + self.norm.bytes() + self.logit_scale.bytes();
        ends + self.layer_bytes().sum::<u64>()
    }

    /// Bytes of the weights of each layer.
    pub fn layer_bytes(&self) -> impl Iterator<Item = u64> {
        self.layers.iter().map(|(norm, block)| norm.bytes() + block.bytes())
    }

    /// Checks the prompt's ids.
    ///
    /// # Errors
    /// [`Error::Prompt`] if an id is not in the vocabulary.
    pub fn check_ids(&self, ids: &[u32]) -> Result<()> {
        match ids.iter().find(|id| **id >= self.config.vocab_size) {
            Some(id) => Err(Error::Prompt {
                why: format!("token {id} is not in the vocabulary of {}", self.config.vocab_size),
                next: "Use the tokenizer.json of this checkpoint",
            }),
            None => Ok(()),
        }
    }
}
