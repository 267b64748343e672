//! Everything that sequences remember: keys and values, convolution tails, recurrent states.
//!
//! One buffer per block, cut into slots of one size, so that a sequence is copied by one buffer copy per block.

use crate::blocks::{Block, Memory};
use crate::buf::{Buf, Elem};
use crate::exec::Exec;
use crate::{Error, Result};

/// Memory of all slots.
#[derive(Debug)]
pub struct Arena {
    /// For each block its memory, if it has any.
    memories: Vec<Option<(Buf, Memory)>>,
    /// Positions of a slot, meta tokens included.
    pub positions: u32,
}

/// The memory of one sequence, outside of the arena.
#[derive(Debug)]
pub struct Saved {
    bufs: Vec<Option<Buf>>,
    /// Positions that are in it.
    pub position: u32,
}

impl Memory {
    /// Elements of a sequence of `positions` positions.
    fn len(&self, positions: u32) -> (u64, Elem) {
        match *self {
            Memory::None => (0, Elem::F32),
            Memory::PerPosition(each, elem) => (each * u64::from(positions), elem),
            Memory::Fixed(len) => (len, Elem::F32),
        }
    }

    fn words(&self, positions: u32) -> u64 {
        let (len, elem) = self.len(positions);
        elem.words(len)
    }
}

impl Arena {
    /// Memory for `slots` sequences of `positions` positions each.
    ///
    /// # Errors
    /// [`Error::Limit`], [`Error::OutOfMemory`].
    pub async fn alloc<'a>(
        exec: &mut Exec,
        blocks: impl Iterator<Item = &'a Block>,
        slots: u32,
        positions: u32,
        kv_f16: bool,
    ) -> Result<Arena> {
        let blocks: Vec<_> = blocks.collect();
        let words = blocks.iter().map(|block| block.memory(kv_f16).words(positions));
        let words = words.fold(0, u64::saturating_add).saturating_mul(slots.into());
        exec.room(&format!("memory of {slots} slots of {positions} positions"), words.saturating_mul(4))?;
        let mut memories = vec![];
        for (i, block) in blocks.into_iter().enumerate() {
            let memory = block.memory(kv_f16);
            let (len, elem) = memory.len(positions);
            memories.push(match memory {
                Memory::None => None,
                _ => {
                    let name =
                        format!("memory of layer {i} ({}), {slots} slots of {positions} positions", block.name());
                    Some((exec.alloc(&name, len * u64::from(slots), elem).await?, memory))
                }
            });
        }
        Ok(Arena { memories, positions })
    }

    /// Each block's memory.
    pub fn bufs(&self) -> impl Iterator<Item = Option<Buf>> {
        self.memories.iter().map(|memory| memory.map(|(buf, _)| buf))
    }

    /// Copies what a slot holds up to `position` out of the arena.
    pub async fn save(&self, exec: &mut Exec, slot: u32, position: u32) -> Result<Saved> {
        let mut bufs = vec![];
        let mut copies = vec![];
        for memory in &self.memories {
            let Some((buf, memory)) = memory else {
                bufs.push(None);
                continue;
            };
            let (len, elem) = memory.len(position);
            let copy = exec.alloc("saved sequence", len, elem).await?;
            let from = u64::from(slot) * memory.words(self.positions);
            copies.push((*buf, from, copy, 0, memory.words(position)));
            bufs.push(Some(copy));
        }
        copies.retain(|copy| copy.4 > 0);
        exec.copy(&copies);
        Ok(Saved { bufs, position })
    }

    /// Copies a saved sequence into a slot.
    ///
    /// # Errors
    /// [`Error::Prompt`] if the slot is too short for it.
    pub fn load(&self, exec: &mut Exec, slot: u32, saved: &Saved) -> Result<()> {
        if saved.position > self.positions {
            let why = format!("a sequence of {} positions in a slot of {}", saved.position, self.positions);
            return Err(Error::Prompt { why, next: "Use a longer context" });
        }
        let pairs =
            self.memories.iter().zip(&saved.bufs).filter_map(|(memory, copy)| Some((memory.as_ref()?, (*copy)?)));
        let copies: Vec<_> = pairs
            .map(|((buf, memory), copy)| {
                let to = u64::from(slot) * memory.words(self.positions);
                (copy, 0, *buf, to, memory.words(saved.position))
            })
            .filter(|copy| copy.4 > 0)
            .collect();
        exec.copy(&copies);
        Ok(())
    }

    /// Gives the memory of a saved sequence back.
    pub fn drop_saved(&self, exec: &mut Exec, saved: Saved) {
        saved.bufs.into_iter().flatten().for_each(|buf| exec.free(buf));
    }

    /// Bytes on the device.
    pub fn bytes(&self) -> u64 {
        self.memories.iter().flatten().map(|(buf, _)| buf.bytes()).sum()
    }
}
