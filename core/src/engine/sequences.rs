//! Sequences in their slots: begin, snapshot, restore, and feed tokens.

use super::Engine;
use crate::arena::Saved;
use crate::sampling::{SAMPLING_WORDS, Sampling};
use crate::{Error, Result};

/// A copy of a sequence at one moment.
#[derive(Debug)]
pub struct Snapshot {
    saved: Saved,
    seen: Vec<u32>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Slot {
    /// Number of positions that are filled, meta tokens included. `None` before `begin`, and after a run that went
    /// beyond its last reported token.
    pub(super) position: Option<u32>,
    pub(super) sampling: Sampling,
    /// One bit for each token id that is in the sequence.
    seen: Vec<u32>,
}

impl Slot {
    /// Marks a token as seen.
    pub(super) fn see(&mut self, token: u32) {
        self.seen[token as usize / 32] |= 1 << (token % 32);
    }
}

pub(super) fn prompt(why: String, next: &'static str) -> Error {
    Error::Prompt { why, next }
}

impl Engine {
    fn slot(&mut self, slot: u32) -> Result<&mut Slot> {
        let slots = self.slots.len();
        self.slots.get_mut(slot as usize).ok_or_else(|| Error::Parameter {
            name: "slot",
            why: format!("{slot} is not one of the {slots} slots of this engine"),
        })
    }

    /// The number of tokens of text in a slot.
    ///
    /// # Errors
    /// [`Error::Parameter`] if there is no such slot, [`Error::Prompt`] if it holds no sequence.
    pub fn position(&mut self, slot: u32) -> Result<u32> {
        let meta = self.model.config.meta_tokens;
        self.slot(slot)?
            .position
            .map(|position| position - meta)
            .ok_or_else(|| prompt(format!("slot {slot} holds no sequence"), "Begin one, or restore a snapshot, first"))
    }

    /// Begins a new sequence in a slot. The state behind the meta tokens is copied in; nothing is computed.
    ///
    /// # Errors
    /// [`Error::Parameter`] if a setting is out of range or there is no such slot.
    pub fn begin(&mut self, slot: u32, sampling: &Sampling) -> Result<()> {
        sampling.validate()?;
        let words = self.model.config.vocab_size.div_ceil(32) as usize;
        let position = self.model.config.meta_tokens;
        *self.slot(slot)? = Slot { position: Some(position), sampling: *sampling, seen: vec![0; words] };
        if let Some(prefix) = &self.prefix {
            self.arena.load(&mut self.exec, slot, prefix)?;
        }
        self.exec.write(self.sampling, u64::from(slot) * SAMPLING_WORDS, &sampling.words());
        Ok(())
    }

    /// Changes how the next tokens of a slot are chosen.
    ///
    /// # Errors
    /// [`Error::Parameter`] if a setting is out of range or there is no such slot.
    pub fn set_sampling(&mut self, slot: u32, sampling: &Sampling) -> Result<()> {
        sampling.validate()?;
        self.slot(slot)?.sampling = *sampling;
        self.exec.write(self.sampling, u64::from(slot) * SAMPLING_WORDS, &sampling.words());
        Ok(())
    }

    /// Copies the sequence in a slot, to return to this moment with [`Engine::restore`].
    ///
    /// # Errors
    /// [`Error::Prompt`] if the slot holds no sequence, [`Error::OutOfMemory`].
    pub async fn snapshot(&mut self, slot: u32) -> Result<Snapshot> {
        let position = self.position(slot)? + self.model.config.meta_tokens;
        let saved = self.arena.save(&mut self.exec, slot, position).await?;
        Ok(Snapshot { saved, seen: self.slots[slot as usize].seen.clone() })
    }

    /// Restores a snapshot of this or another slot into a slot. The slot keeps its own sampling settings.
    ///
    /// # Errors
    /// [`Error::Parameter`] if there is no such slot.
    pub fn restore(&mut self, slot: u32, snapshot: &Snapshot) -> Result<()> {
        let sampling = self.slot(slot)?.sampling;
        self.arena.load(&mut self.exec, slot, &snapshot.saved)?;
        let state = self.slot(slot)?;
        state.position = Some(snapshot.saved.position);
        state.seen.clone_from(&snapshot.seen);
        // The device has no settings for a slot in which no sequence was begun.
        self.set_sampling(slot, &sampling)
    }

    /// Frees the memory of a snapshot.
    pub fn release(&mut self, snapshot: Snapshot) {
        self.arena.drop_saved(&mut self.exec, snapshot.saved);
    }

    /// Checks that the tokens fit into the slot, behind those that it holds.
    pub(super) fn check_fits(&self, used: u32, tokens: u64) -> Result<()> {
        let context = self.options.context;
        if tokens > u64::from(context - used) {
            let why = format!("{tokens} tokens do not fit: {used} of {context} are used");
            return Err(prompt(why, "Use a shorter prompt or a longer context"));
        }
        Ok(())
    }

    /// Checks that tokens fit into a slot, and marks them as seen.
    pub(super) fn feed(&mut self, slot: u32, tokens: &[u32]) -> Result<u32> {
        self.model.check_ids(tokens)?;
        if tokens.is_empty() {
            return Err(prompt("it has no tokens".into(), "Give at least one"));
        }
        let used = self.position(slot)?;
        self.check_fits(used, tokens.len() as u64)?;
        let state = &mut self.slots[slot as usize];
        tokens.iter().for_each(|token| state.see(*token));
        if state.sampling.repetition_penalty != 1.0 {
            let at = u64::from(slot) * state.seen.len() as u64;
            self.exec.write(self.seen, at, &state.seen);
        }
        Ok(used + self.model.config.meta_tokens)
    }
}
