//! Sequence memory: keys and values (the KV cache), convolution inputs and recurrent states of all sequences.
//!
//! Each block has one buffer, which is cut into slots of one size. So a sequence is copied by one buffer copy per
//! block. The keys and values of many long sequences may not fit into one binding. They are then in several buffers,
//! with [`Arena::bank`] slots in each.

use crate::blocks::{Block, Memory};
use crate::buf::{Buf, Elem};
use crate::exec::Exec;
use crate::{Error, Result};

/// A limit, in bytes, for the keys and values of one layer. No device has so much memory.
const MOST: u64 = 1 << 40;

/// The memory of all slots.
#[derive(Debug)]
pub struct Arena {
    /// The memory of each block; `None` for a block that has no state.
    memories: Vec<Option<(Vec<Buf>, Memory)>>,
    /// Positions of a slot, meta tokens included.
    pub positions: u32,
    /// Number of slots whose keys and values are in one buffer.
    pub bank: u32,
}

/// A copy of the memory of one sequence, outside the arena.
#[derive(Debug)]
pub struct Saved {
    bufs: Vec<Option<Buf>>,
    /// How many positions of the sequence are saved.
    pub position: u32,
}

impl Memory {
    /// Number and type of the elements that a sequence of `positions` positions needs.
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
        let blocks: Vec<_> = blocks.map(|block| (block.part().name(), block.memory(kv_f16))).collect();
        // One buffer takes as many slots as fit into a binding with the largest keys and values of a layer, but at
        // least one. If one slot does not fit, the error of `alloc` says so. A size beyond `MOST` is asked for in one
        // piece, so that it is refused before anything is allocated.
        let most = exec.caps().max_binding.min(exec.caps().max_buffer);
        let keys = blocks.iter().filter(|(_, memory)| matches!(memory, Memory::PerPosition(..)));
        let each = keys.map(|(_, memory)| memory.words(positions) * 4).max();
        let bank = match each {
            Some(each) if each * u64::from(slots) <= MOST => (most / each.max(1)).clamp(1, slots.into()) as u32,
            _ => slots,
        };
        let words = blocks.iter().map(|(_, memory)| memory.words(positions)).fold(0, u64::saturating_add);
        let words = words.saturating_mul(slots.into());
        exec.room(&format!("memory of {slots} slots of {positions} positions"), words.saturating_mul(4))?;
        let mut memories = vec![];
        for (i, &(name, memory)) in blocks.iter().enumerate() {
            let (len, elem) = memory.len(positions);
            let bank = match memory {
                Memory::None => {
                    memories.push(None);
                    continue;
                }
                Memory::PerPosition(..) => bank,
                Memory::Fixed(_) => slots,
            };
            let mut bufs = vec![];
            for first in (0..slots).step_by(bank as usize) {
                let count = bank.min(slots - first);
                let name = format!("memory of layer {i} ({name}), {count} slots of {positions} positions");
                bufs.push(exec.alloc(&name, len * u64::from(count), elem).await?);
            }
            memories.push(Some((bufs, memory)));
        }
        Ok(Arena { memories, positions, bank })
    }

    /// The memory of each block: one buffer, or one for every [`Arena::bank`] slots of keys and values.
    pub fn bufs(&self) -> impl Iterator<Item = &[Buf]> {
        self.memories.iter().map(|memory| memory.as_ref().map_or(&[][..], |(bufs, _)| bufs))
    }

    /// The buffer that holds a slot, and the word at which the slot begins in it.
    fn place(&self, bufs: &[Buf], memory: &Memory, slot: u32) -> (Buf, u64) {
        let (bank, place) = if bufs.len() == 1 { (0, slot) } else { (slot / self.bank, slot % self.bank) };
        (bufs[bank as usize], u64::from(place) * memory.words(self.positions))
    }

    /// Copies the sequence in a slot, up to `position`, out of the arena.
    pub async fn save(&self, exec: &mut Exec, slot: u32, position: u32) -> Result<Saved> {
        let mut bufs = vec![];
        let mut copies = vec![];
        for memory in &self.memories {
            let Some((held, memory)) = memory else {
                bufs.push(None);
                continue;
            };
            let (len, elem) = memory.len(position);
            let copy = exec.alloc("saved sequence", len, elem).await?;
            let (buf, from) = self.place(held, memory, slot);
            copies.push((buf, from, copy, 0, memory.words(position)));
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
            .map(|((held, memory), copy)| {
                let (buf, to) = self.place(held, memory, slot);
                (copy, 0, buf, to, memory.words(saved.position))
            })
            .filter(|copy| copy.4 > 0)
            .collect();
        exec.copy(&copies);
        Ok(())
    }

    /// Frees the memory of a saved sequence.
    pub fn drop_saved(&self, exec: &mut Exec, saved: Saved) {
        saved.bufs.into_iter().flatten().for_each(|buf| exec.free(buf));
    }

    /// Bytes on the device.
    pub fn bytes(&self) -> u64 {
        self.memories.iter().flatten().flat_map(|(bufs, _)| bufs).map(Buf::bytes).sum()
    }
}
