//! A text that grows turn by turn, and whose beginning is not read again.

use super::Engine;
use super::run::Event;
use super::sequences::Snapshot;
use crate::Result;
use crate::sampling::Sampling;
use std::ops::ControlFlow;

/// The tokens that a model has read, for [`Engine::answer`].
///
/// After an answer the engine has run a few tokens beyond its end, so the memory of the slot cannot be used. The
/// transcript therefore keeps a snapshot from before the new text of the last turn.
#[derive(Debug, Default)]
pub struct Transcript {
    /// The tokens of the text, those of the last answer included.
    read: Vec<u32>,
    /// A snapshot of the sequence, and the number of tokens that it covers.
    snapshot: Option<(Snapshot, usize)>,
}

impl Transcript {
    /// All tokens that the model has read.
    pub fn read(&self) -> &[u32] {
        &self.read
    }

    /// Sets the tokens of the text after an answer: the prompt, and the answer as the text has it.
    pub fn set_read(&mut self, ids: Vec<u32>) {
        self.read = ids;
    }

    /// Drops the snapshot if it covers more than the first `known` tokens.
    fn forget_after(&mut self, engine: &mut Engine, known: usize) {
        if let Some((snapshot, _)) = self.snapshot.take_if(|(_, at)| *at > known) {
            engine.release(snapshot);
        }
    }

    /// Forgets the text, and frees the snapshot.
    pub fn clear(&mut self, engine: &mut Engine) {
        self.read.clear();
        self.forget_after(engine, 0);
    }
}

impl Engine {
    /// [`Engine::generate`] for a prompt that may begin with tokens that the transcript has read. Only the tokens after
    /// the snapshot are read again, and only those are reported to `on_event` as the prompt. Afterwards the caller sets
    /// what the text is, with [`Transcript::set_read`].
    ///
    /// # Errors
    /// As [`Engine::begin`], [`Engine::snapshot`] and [`Engine::generate`].
    pub async fn answer(
        &mut self,
        slot: u32,
        transcript: &mut Transcript,
        sampling: &Sampling,
        ids: &[u32],
        max_tokens: u32,
        on_event: &mut dyn FnMut(Event) -> ControlFlow<()>,
    ) -> Result<()> {
        self.check_fits(0, ids.len() as u64)?;
        // At least one token must run, because the next token is chosen from its results.
        let known = ids.iter().zip(&transcript.read).take_while(|(new, old)| new == old).count();
        let known = known.min(ids.len().saturating_sub(1));
        transcript.forget_after(self, known);
        self.begin(slot, sampling)?;
        let start = match &transcript.snapshot {
            Some((snapshot, at)) => {
                self.restore(slot, snapshot)?;
                *at
            }
            None => 0,
        };
        let (done, total) = (known - start, ids.len() - start);
        let mut part = |done| on_event(Event::Prefill { done, total });
        if self.prefill(slot, &ids[start..known], &mut part).await?.is_break() {
            return Ok(());
        }
        if start < known {
            // The next turn comes back to this point.
            let now = self.snapshot(slot).await?;
            if let Some((before, _)) = transcript.snapshot.replace((now, known)) {
                self.release(before);
            }
        }
        let mut all = |event| match event {
            Event::Prefill { done: more, .. } => on_event(Event::Prefill { done: done + more, total }),
            token => on_event(token),
        };
        self.generate(slot, &ids[known..], max_tokens, &mut all).await
    }
}
