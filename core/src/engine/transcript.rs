//! A text that grows turn by turn, without reading its beginning again.

use super::Engine;
use super::run::Event;
use super::sequences::Snapshot;
use crate::Result;
use crate::sampling::Sampling;
use std::ops::ControlFlow;

/// What a model has read, for [`Engine::answer`].
///
/// The engine runs a few tokens ahead of an answer's end, so its memory after an answer is of no use. What is kept is
/// a snapshot from before what was new in the last turn.
#[derive(Debug, Default)]
pub struct Transcript {
    /// The last answer's tokens among them.
    read: Vec<u32>,
    /// The sequence after the first so many of them.
    snapshot: Option<(Snapshot, usize)>,
}

impl Transcript {
    /// All tokens that the model has read.
    pub fn read(&self) -> &[u32] {
        &self.read
    }

    /// After an answer: prompt and answer as they stand in the text.
    pub fn set_read(&mut self, ids: Vec<u32>) {
        self.read = ids;
    }

    /// Gives a snapshot up that stands behind the first `known` tokens.
    fn forget_after(&mut self, engine: &mut Engine, known: usize) {
        if let Some((snapshot, _)) = self.snapshot.take_if(|(_, at)| *at > known) {
            engine.release(snapshot);
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self, engine: &mut Engine) {
        self.read.clear();
        self.forget_after(engine, 0);
    }
}

impl Engine {
    /// [`Engine::generate`] after a text that may begin with what the transcript has read: only what no snapshot reaches is
    /// read again, and `on_event` hears of that as the prompt. What the text and the answer are in the end is the
    /// caller's to say ([`Transcript::set_read`]).
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
        self.check_fits(0, ids)?;
        // At least one token is left to run, for the one after it.
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
            // The next time comes back to this point.
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
