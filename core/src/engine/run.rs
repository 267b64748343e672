//! Running sequences: single steps, whole answers, logits.

use super::sequences::prompt;
use super::{AHEAD, Ends, Engine, LOGIT_ROWS};
use crate::batch::{Batch, PICKED};
use crate::buf::Elem;
use crate::exec::Exec;
use crate::ops::MATVEC_ROWS;
use crate::sampling::NOT_FINITE;
use crate::{Error, Result};
use std::collections::{HashSet, VecDeque};
use std::ops::ControlFlow;

/// Tokens of one sequence in a step.
#[derive(Clone, Copy, Debug)]
pub struct Piece<'a> {
    /// The slot of the sequence.
    pub slot: u32,
    /// Its next tokens.
    pub tokens: &'a [u32],
    /// Whether to choose the token after these.
    pub pick: bool,
}

/// What [`Engine::generate`] reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// `done` of `total` tokens of the prompt are processed.
    Prefill {
        /// Tokens that are processed.
        done: usize,
        /// Tokens of the prompt.
        total: usize,
    },
    /// The next token of the answer.
    Token(u32),
}

impl Engine {
    /// Number of rows of the plan for a step of so many tokens, or an error if no plan is large enough.
    pub(super) fn rows_for(&self, tokens: usize) -> Result<u32> {
        let most = self.scratch.x.len / u64::from(self.model.config.hidden_size);
        if tokens as u64 > most {
            return Err(prompt(format!("a step of {tokens} tokens is longer than {most}"), "Use several steps"));
        }
        Ok(self.bucket(tokens as u32, tokens == 1))
    }

    /// Runs one step over the next tokens of some sequences. Each slot may occur once. In all there may be as many
    /// tokens as [`EngineOptions::prefill_rows`](super::EngineOptions::prefill_rows) allows. Returns the chosen token of each piece that picks.
    ///
    /// # Errors
    /// [`Error::Prompt`] for tokens that do not fit, [`Error::NonFinite`], [`Error::Device`].
    pub async fn step(&mut self, pieces: &[Piece<'_>]) -> Result<Vec<Option<u32>>> {
        self.rows_for(pieces.iter().map(|piece| piece.tokens.len()).sum())?;
        let mut batch = Batch::default();
        once(pieces.iter().map(|piece| piece.slot))?;
        for piece in pieces {
            let position = self.feed(piece.slot, piece.tokens)?;
            batch.push(piece.slot, position, piece.tokens, piece.pick);
        }
        let steps = batch.segments.iter().all(|segment| segment.rows == 1);
        let ends = self.bucket(batch.segments.len() as u32, true);
        let ends = match (pieces.iter().any(|piece| piece.pick), steps) {
            (false, _) => Ends::None,
            (true, true) => Ends::Rows(ends),
            (true, false) => Ends::Gathered(ends),
        };
        let ticket = self.submit(&batch, steps, ends, true).await?;
        let picked = self.exec.collect(ticket).await?;
        let mut out = vec![];
        for piece in pieces {
            let state = &mut self.slots[piece.slot as usize];
            let position = state.position.unwrap_or(0) + piece.tokens.len() as u32;
            state.position = Some(position);
            out.push(if piece.pick { Some(finite(picked[piece.slot as usize], position)?) } else { None });
        }
        Ok(out)
    }

    /// Reads tokens into a slot, in steps of a length that suits the device, and chooses no token after them. The
    /// sequence can be continued. After each step, `on_step` gets the number of tokens that are done, and it can stop
    /// the run with `Break`.
    ///
    /// # Errors
    /// As [`Engine::step`].
    pub async fn prefill(
        &mut self,
        slot: u32,
        tokens: &[u32],
        on_step: &mut dyn FnMut(usize) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>> {
        let mut rest = tokens;
        while let Some(chunk) = self.next_chunk(&mut rest) {
            // Time for compiling kernels does not count as time of the step.
            self.prepare(self.rows_for(chunk.len())?, chunk.len() == 1, Ends::None).await?;
            let begin = self.pace.begin();
            self.step(&[Piece { slot, tokens: chunk, pick: false }]).await?;
            self.pace.end(chunk.len(), begin);
            if on_step(tokens.len() - rest.len()).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Runs a prompt through a slot and chooses up to `max_tokens` tokens after it. `on_event` gets every prefill step
    /// and every token, and it can stop the run with `Break`.
    ///
    /// The device runs a few steps ahead of the tokens that are reported, so the slot holds no usable sequence
    /// afterwards. Call [`Engine::begin`] or [`Engine::restore`] before the next run.
    ///
    /// # Errors
    /// [`Error::Prompt`] if prompt and answer do not fit, [`Error::NonFinite`], [`Error::Device`].
    pub async fn generate(
        &mut self,
        slot: u32,
        ids: &[u32],
        max_tokens: u32,
        on_event: &mut dyn FnMut(Event) -> ControlFlow<()>,
    ) -> Result<()> {
        let mut position = self.feed(slot, ids)?;
        let room = self.arena.positions - position - ids.len() as u32;
        // The last chosen token is not run through the model, so one token more than there is room for can be chosen.
        let max_tokens = max_tokens.min(room + 1);
        self.slots[slot as usize].position = None;
        let (mut first, mut rest) = (None, ids);
        while let Some(tokens) = self.next_chunk(&mut rest) {
            let done = ids.len() - rest.len();
            let pick = done == ids.len() && max_tokens > 0;
            let mut batch = Batch::default();
            batch.push(slot, position, tokens, pick);
            position += tokens.len() as u32;
            let steps = tokens.len() == 1;
            let ends = match (pick, steps) {
                (false, _) => Ends::None,
                (true, true) => Ends::Rows(1),
                (true, false) => Ends::Gathered(1),
            };
            let picked = self.run(&batch, steps, ends).await?;
            first = pick.then(|| picked[slot as usize]);
            if on_event(Event::Prefill { done, total: ids.len() }).is_break() {
                return Ok(());
            }
        }
        let Some(first) = first else { return Ok(()) };
        if on_event(Event::Token(finite(first, position)?)).is_break() {
            return Ok(());
        }
        let mut batch = Batch::default();
        batch.push(slot, position, &[PICKED], true);
        let mut on_step = |picked: &[u32]| {
            position += 1;
            Ok(on_event(Event::Token(finite(picked[slot as usize], position)?)))
        };
        self.run_ahead(&batch, max_tokens - 1, &mut on_step).await.map(drop)
    }

    /// Runs decode steps of several sequences, each of which chooses a token for every sequence. `next` has the slot of each
    /// sequence and the token that is run through the model first: the last one that was chosen, or the last one of its
    /// prompt. After each step, `on_step` gets the chosen tokens in the order of `next`, and it can stop the run with `Break`.
    ///
    /// The device runs a few steps ahead of the tokens that are reported. So after a `Break` or an error the slots hold no
    /// usable sequences. Otherwise they hold all tokens but the last ones that were chosen, and can be continued.
    ///
    /// # Errors
    /// [`Error::Prompt`] if a slot occurs twice, holds no sequence or has no room for so many tokens, [`Error::NonFinite`],
    /// [`Error::Device`].
    pub async fn decode(
        &mut self,
        next: &[(u32, u32)],
        steps: u32,
        on_step: &mut dyn FnMut(&[u32]) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>> {
        once(next.iter().map(|(slot, _)| *slot))?;
        for &(slot, _) in next {
            let used = self.position(slot)?;
            self.check_fits(used, steps.into())?;
        }
        if next.is_empty() || steps == 0 {
            return Ok(ControlFlow::Continue(()));
        }
        let mut batch = Batch::default();
        for &(slot, token) in next {
            let position = self.feed(slot, &[token])?;
            batch.push(slot, position, &[token], true);
        }
        next.iter().for_each(|(slot, _)| self.slots[*slot as usize].position = None);
        let mut chosen = vec![]; // [steps, sequences]; no longer than what was chosen, however many steps were asked for
        let mut on_picked = |picked: &[u32]| {
            let from = chosen.len();
            let done = (from / next.len()) as u32 + 1;
            for row in &batch.rows {
                chosen.push(finite(picked[row.slot as usize], row.position + done)?);
            }
            Ok(on_step(&chosen[from..]))
        };
        let result = self.run_ahead(&batch, steps, &mut on_picked).await?;
        if result.is_continue() {
            for (i, row) in batch.rows.iter().enumerate() {
                let state = &mut self.slots[row.slot as usize];
                state.position = Some(row.position + steps);
                chosen.iter().skip(i).step_by(next.len()).for_each(|token| state.see(*token));
            }
        }
        Ok(result)
    }

    /// Runs decode steps of the sequences in `batch`, each of which has one row. The loop stays on the device: the kernel that
    /// picks a token writes it where the next step reads it. So a step is submitted before the tokens of the step before
    /// it are read. `on_step` gets the token that was picked last in each slot.
    async fn run_ahead(
        &mut self,
        batch: &Batch,
        steps: u32,
        on_step: &mut dyn FnMut(&[u32]) -> Result<ControlFlow<()>>,
    ) -> Result<ControlFlow<()>> {
        let ahead = if matches!(self.exec, Exec::Gpu(_)) { AHEAD } else { 1 };
        let ends = Ends::Rows(self.bucket(batch.size().rows, true));
        let mut flying = VecDeque::with_capacity(ahead);
        let (mut submitted, mut result) = (0, Ok(ControlFlow::Continue(())));
        while matches!(result, Ok(ControlFlow::Continue(()))) && (submitted < steps || !flying.is_empty()) {
            while flying.len() < ahead && submitted < steps {
                flying.push_back(self.submit(batch, true, ends, submitted == 0).await?);
                submitted += 1;
            }
            let Some(ticket) = flying.pop_front() else { break };
            result = on_step(&self.exec.collect(ticket).await?);
        }
        for ticket in flying {
            self.exec.collect(ticket).await?;
        }
        result
    }

    /// The logits after each of the next tokens of a slot, [tokens, vocab_size].
    ///
    /// # Errors
    /// [`Error::Prompt`] for tokens that do not fit, [`Error::NonFinite`], [`Error::Limit`], [`Error::Device`].
    pub async fn logits(&mut self, slot: u32, ids: &[u32]) -> Result<Vec<f32>> {
        let mut out = Vec::with_capacity(ids.len() * self.model.config.vocab_size as usize);
        let vocab = self.model.config.vocab_size as usize;
        let mut keep = |logits: &[f32], first: u32| {
            if let Some(i) = logits.iter().position(|v| !v.is_finite()) {
                return Err(Error::NonFinite { position: first + (i / vocab) as u32 + 1 });
            }
            out.extend_from_slice(logits);
            Ok(())
        };
        self.each_logits(slot, ids, &mut keep).await?;
        Ok(out)
    }

    /// The negative log-likelihood `-ln p`, in nats, of each token after the first, given all tokens before it. The
    /// result has one number fewer than `ids`. The text's perplexity is `e` to the power of their mean.
    ///
    /// All tokens but the last are read into the slot. So a text of any length can be scored in parts: let the next
    /// part begin with the last token of this one. The logits of at most 64 rows are in memory at a time. Sums are
    /// computed in f64.
    ///
    /// # Errors
    /// [`Error::Prompt`] for fewer than two tokens and for tokens that do not fit, [`Error::NonFinite`] if a logit is
    /// NaN or infinite or gives a token no probability at all, [`Error::Limit`], [`Error::Device`].
    pub async fn nll(&mut self, slot: u32, ids: &[u32]) -> Result<Vec<f32>> {
        let [run @ .., _] = ids else { return Err(too_short()) };
        if run.is_empty() {
            return Err(too_short());
        }
        self.model.check_ids(ids)?;
        let vocab = self.model.config.vocab_size as usize;
        let mut out = Vec::with_capacity(run.len());
        let mut score = |logits: &[f32], first: u32| {
            for (row, position) in logits.chunks_exact(vocab).zip(first + 1..) {
                let token = ids[out.len() + 1] as usize;
                out.push(surprise(row, token).ok_or(Error::NonFinite { position })?);
            }
            Ok(())
        };
        self.each_logits(slot, run, &mut score).await?;
        Ok(out)
    }

    /// Reads tokens into a slot. `take` gets the logits [rows, vocab_size] of up to [`LOGIT_ROWS`] of them at a time,
    /// with the position of the first row.
    async fn each_logits(
        &mut self,
        slot: u32,
        ids: &[u32],
        take: &mut dyn FnMut(&[f32], u32) -> Result<()>,
    ) -> Result<()> {
        let mut position = self.feed(slot, ids)?;
        let vocab = self.model.config.vocab_size as usize;
        if self.all_logits.is_none() {
            let len = u64::from(LOGIT_ROWS) * vocab as u64;
            self.all_logits = Some(self.exec.alloc("logits of all rows", len, Elem::F32).await?);
        }
        for tokens in ids.chunks(LOGIT_ROWS.min(self.pace.most()) as usize) {
            let mut batch = Batch::default();
            batch.push(slot, position, tokens, false);
            // A GPU in software takes seconds for rows of a large vocabulary that nobody needs.
            let few = self.exec.caps().software && tokens.len() <= MATVEC_ROWS as usize;
            let rows = if few { MATVEC_ROWS } else { LOGIT_ROWS };
            let ticket = self.submit(&batch, tokens.len() == 1, Ends::All(rows), true).await?;
            take(bytemuck::cast_slice(&self.exec.collect(ticket).await?), position)?;
            position += tokens.len() as u32;
        }
        self.slots[slot as usize].position = Some(position);
        Ok(())
    }
}

/// Checks that no slot occurs twice.
fn once(slots: impl Iterator<Item = u32>) -> Result<()> {
    let mut seen = HashSet::new();
    for slot in slots {
        if !seen.insert(slot) {
            return Err(prompt(format!("slot {slot} occurs twice in one step"), "Give each slot once"));
        }
    }
    Ok(())
}

fn too_short() -> Error {
    prompt("a single token has none in front of it, so there is nothing to score".into(), "Give at least two tokens")
}

/// `-ln softmax(logits)[token]` in nats, by a log-sum-exp in f64; `None` if that is not a finite number.
fn surprise(logits: &[f32], token: usize) -> Option<f32> {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|&logit| (f64::from(logit) - f64::from(most)).exp()).sum();
    let nats = (sum.ln() + (f64::from(most) - f64::from(logits[token]))) as f32;
    // The sum is NaN if a logit is NaN, or if the largest logit is infinite.
    nats.is_finite().then_some(nats)
}

fn finite(token: u32, position: u32) -> Result<u32> {
    if token == NOT_FINITE { Err(Error::NonFinite { position }) } else { Ok(token) }
}

#[cfg(test)]
mod tests {
    use super::surprise;

    #[test]
    fn surprise_is_the_softmax_in_nats() {
        let near = |logits: &[f32], token, want: f64| {
            let got = f64::from(surprise(logits, token).expect("finite"));
            assert!((got - want).abs() < 1e-6 * want.max(1.0), "{logits:?}: {got}, wanted {want}");
        };
        near(&[0.0; 8], 3, 8f64.ln());
        near(&[1.0, 2.0, 3.0], 2, (1.0 + (-1f64).exp() + (-2f64).exp()).ln());
        // Logits at both ends of f32 do not overflow, and tokens without probability do not change the others.
        near(&[3e38, 3e38, -3e38], 1, 2f64.ln());
        near(&[f32::NEG_INFINITY, 5.0], 1, 0.0);
        for (logits, token) in [
            ([f32::NAN, 1.0], 1),
            ([f32::INFINITY, 1.0], 1),
            ([f32::NEG_INFINITY, 1.0], 0),
            ([f32::NEG_INFINITY; 2], 0),
        ] {
            assert_eq!(surprise(&logits, token), None, "{logits:?}");
        }
    }
}
