//! The model: embedding, a list of (norm, block), final norm, head.

use crate::blocks::{Block, Run};
use crate::buf::{Buf, Elem};
use crate::config::Config;
use crate::exec::Exec;
use crate::inventory::{EMBED, FINAL_NORM, HEAD, MEMORY};
use crate::matrix::{Matrix, Place, Places, vector};
use crate::op::floats;
use crate::ops;
use crate::plan::Plan;
use crate::{Error, Result};

/// Weights of a whole model on a device.
#[derive(Debug)]
pub struct Model {
    /// What the model is.
    pub config: Config,
    /// Embedding of the vocabulary, [vocab_size, hidden_size].
    embedding: Matrix,
    /// Embedding of the meta tokens, [memory_tokens, hidden_size], if there are any.
    memory: Option<Matrix>,
    /// Norm weight and block of each layer.
    pub(crate) layers: Vec<(Buf, Block)>,
    /// Weight of the final norm.
    norm: Buf,
    /// The head where it is not the embedding.
    head: Option<Matrix>,
    /// What each logit is multiplied by, [vocab_size].
    divisor: Buf,
}

impl Model {
    /// Room for every weight, and the place of every tensor.
    pub(crate) async fn alloc(exec: &mut Exec, config: Config) -> Result<(Model, Places)> {
        let Config { vocab_size, hidden_size, memory_tokens, .. } = config;
        let mut places = Places::new();
        let embedding = Matrix::alloc(exec, EMBED, vocab_size, hidden_size, 1).await?;
        places.insert(EMBED.into(), embedding.lines(0, vocab_size, 0));
        let memory = match memory_tokens {
            0 => None,
            rows => {
                let memory = Matrix::alloc(exec, MEMORY, rows, hidden_size, 1).await?;
                places.insert(MEMORY.into(), memory.lines(0, rows, 0));
                Some(memory)
            }
        };
        let norm = vector(exec, &mut places, FINAL_NORM.into(), hidden_size).await?;
        let head = match config.tie_word_embeddings {
            true => {
                places.insert(HEAD.into(), Place::Nowhere);
                None
            }
            false => {
                let head = Matrix::alloc(exec, HEAD, vocab_size, hidden_size, 1).await?;
                places.insert(HEAD.into(), head.lines(0, vocab_size, 0));
                Some(head)
            }
        };
        let mut layers = Vec::with_capacity(config.layers.len());
        for layer in &config.layers {
            let norm = vector(exec, &mut places, layer.norm.clone(), hidden_size).await?;
            layers.push((norm, Block::alloc(exec, &mut places, layer, hidden_size).await?));
        }
        let divisor = exec.alloc("divisor", vocab_size.into(), Elem::F32).await?;
        Ok((Model { config, embedding, memory, layers, norm, head, divisor }, places))
    }

    /// Computes what depends on loaded weights alone: the lengths of the vocabulary rows (spec 3.7).
    pub(crate) async fn finish(&mut self, exec: &mut Exec) -> Result<()> {
        let total = self.config.vocab_size;
        if !self.config.divide_logits {
            exec.write(self.divisor, 0, &vec![1f32.to_bits(); total as usize]);
            return Ok(());
        }
        let mut plan = Plan::default();
        for part in &self.head().parts {
            let op = ops::RowNorms { rows: part.outs, width: self.config.hidden_size, first: part.first, total };
            plan.add(op, &[part.buf, self.divisor]);
        }
        exec.prepare(&mut plan).await?;
        let size = crate::batch::Size { rows: 1, segments: 1 };
        let ticket = exec.submit(&[(&plan, size)], None)?;
        exec.collect(ticket).await.map(drop)
    }

    /// Shortest and longest vocabulary row, by whose lengths logits are divided (spec 3.7), as the device computed them;
    /// nothing if the model does not divide. A row of zeros counts as 1.
    ///
    /// # Errors
    /// [`Error::Device`].
    pub async fn vocabulary_norms(&self, exec: &mut Exec) -> Result<Option<(f32, f32)>> {
        if !self.config.divide_logits {
            return Ok(None);
        }
        let words = exec.read(self.divisor).await?;
        let lengths = floats(&words[..self.config.vocab_size as usize]).iter().map(|factor| 1.0 / factor);
        Ok(Some(lengths.fold((f32::INFINITY, 0.0), |(least, most), length| (least.min(length), most.max(length)))))
    }

    fn head(&self) -> &Matrix {
        self.head.as_ref().unwrap_or(&self.embedding)
    }

    /// Records the forward pass up to the final norm: `x` of the scratch holds the residual stream.
    /// `memories` and `rotaries` are each layer's.
    pub(crate) fn forward(&self, plan: &mut Plan, run: &Run, picked: Buf, memories: &[(Option<Buf>, Option<Buf>)]) {
        let Config { vocab_size, hidden_size: width, .. } = self.config;
        plan.part = "embedding";
        // Meta tokens have the ids after the vocabulary's; they never come one by one.
        let memory = self.memory.iter().filter(|_| !run.steps).map(|memory| (memory, vocab_size));
        for (table, from) in memory.chain([(&self.embedding, 0)]) {
            for part in &table.parts {
                let (first, count) = (from + part.first, part.outs);
                let op = ops::Embed { rows: run.rows, width, first, count, slots: run.slots };
                plan.add(op, &[run.batch, picked, part.buf, run.scratch.x]);
            }
        }
        for ((norm, block), (memory, rotary)) in self.layers.iter().zip(memories) {
            block.mix(plan, run, *norm, *memory, *rotary);
        }
    }

    /// Records logits [rows, vocab_size] of `rows` rows of `x`, with `h` [rows, hidden_size] as scratch.
    pub(crate) fn logits(&self, plan: &mut Plan, rows: u32, x: Buf, h: Buf, logits: Buf) {
        let Config { vocab_size: stride, hidden_size: cols, rms_norm_eps: eps, .. } = self.config;
        plan.part = "head";
        let few = rows <= ops::MATVEC_ROWS;
        if !few {
            plan.add(ops::RmsNorm { rows, width: cols, per_row: 1, eps }, &[x, self.norm, h]);
        }
        for part in &self.head().parts {
            let (first, outs) = (part.first, part.outs);
            if few {
                let op = ops::Logits { rows, cols, outs, first, stride, eps };
                plan.add(op, &[part.buf, x, self.norm, self.divisor, logits]);
            } else {
                let op = ops::MatmulLogits { rows, cols, line: 0, outs, first, stride };
                plan.add(op, &[part.buf, h, self.divisor, logits]);
            }
        }
    }

    /// Bytes of weights on the device.
    pub fn bytes(&self) -> u64 {
        let tables = [Some(&self.embedding), self.memory.as_ref(), self.head.as_ref()];
        let ends = tables.iter().flatten().map(|m| m.bytes()).sum::<u64>() + self.norm.bytes() + self.divisor.bytes();
        ends + self.layers.iter().map(|(norm, block)| norm.bytes() + block.bytes()).sum::<u64>()
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
