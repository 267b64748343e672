//! Execution on the CPU: buffers are vectors, and a step runs the CPU twin of its operator.

use crate::batch::Size;
use crate::buf::Buf;
use crate::plan::Plan;
use crate::{Error, Result};
use std::pin::Pin;

/// What the engine awaits after every step, so that other work on the same thread can run.
pub type Pause = fn() -> Pin<Box<dyn Future<Output = ()>>>;

/// The CPU as a device. Its buffers are in host memory.
#[derive(Debug, Default)]
pub struct Cpu {
    memory: Vec<Vec<u32>>,
    pause: Option<Pause>,
    /// Limit of the bytes of all buffers together, if there is one.
    most: Option<u64>,
}

impl Cpu {
    /// A CPU that pauses after every step.
    pub fn with_pause(pause: Pause) -> Cpu {
        Cpu { pause: Some(pause), ..Cpu::default() }
    }

    /// A CPU with a limit of the bytes of all buffers together. It is useful because an operating system may promise
    /// more memory than it has.
    pub fn within(bytes: u64) -> Cpu {
        Cpu { most: Some(bytes), ..Cpu::default() }
    }

    /// Refuses an allocation beyond the limit before any of it is made.
    pub(crate) fn room(&self, what: &str, bytes: u64) -> Result<()> {
        let held: u64 = self.memory.iter().map(|words| words.len() as u64 * 4).sum();
        let Some(most) = self.most.filter(|most| held.saturating_add(bytes) > *most) else { return Ok(()) };
        Err(Error::Limit {
            what: what.into(),
            limit: "bytes of free memory that may be taken",
            need: bytes,
            have: most.saturating_sub(held),
            next: "Use a shorter context, fewer slots or sequences, a smaller model, or another device",
        })
    }

    pub(crate) async fn collect(&self, words: Vec<u32>) -> Vec<u32> {
        if let Some(pause) = self.pause {
            pause().await;
        }
        words
    }

    pub(crate) fn clear(&mut self) {
        self.memory.clear();
    }

    pub(crate) fn alloc(&mut self, name: &str, words: u64) -> Result<u32> {
        self.room(name, words.saturating_mul(4))?;
        let out_of_memory = || Error::OutOfMemory { what: name.into(), bytes: words * 4 };
        let len = usize::try_from(words).map_err(|_| out_of_memory())?;
        let mut memory = Vec::new();
        memory.try_reserve_exact(len).map_err(|_| out_of_memory())?;
        memory.resize(len, 0);
        self.memory.push(memory);
        Ok(self.memory.len() as u32 - 1)
    }

    pub(crate) fn write(&mut self, buf: Buf, at: u64, words: &[u32]) {
        self.memory[buf.id as usize][at as usize..at as usize + words.len()].copy_from_slice(words);
    }

    pub(crate) fn copy(&mut self, copies: &[(Buf, u64, Buf, u64, u64)]) {
        for &(from, at, to, there, words) in copies {
            let (at, there, words) = (at as usize, there as usize, words as usize);
            let source = std::mem::take(&mut self.memory[from.id as usize]);
            self.memory[to.id as usize][there..there + words].copy_from_slice(&source[at..at + words]);
            self.memory[from.id as usize] = source;
        }
    }

    pub(crate) fn free(&mut self, buf: Buf) {
        self.memory[buf.id as usize] = Vec::new();
    }

    pub(crate) fn run(&mut self, plans: &[(&Plan, Size)], read: Option<(Buf, u64)>) -> Vec<u32> {
        for (plan, size) in plans {
            for step in &plan.steps {
                // The buffers of a step are taken out of `memory` and put back, so that the CPU twin may write some of
                // them while it reads others. A buffer that is bound twice (read only) is copied.
                let mut bufs: Vec<Vec<u32>> = Vec::with_capacity(step.bufs.len());
                for (i, buf) in step.bufs.iter().enumerate() {
                    let earlier = step.bufs[..i].iter().position(|other| other.id == buf.id);
                    bufs.push(match earlier {
                        Some(j) => bufs[j].clone(),
                        None => std::mem::take(&mut self.memory[buf.id as usize]),
                    });
                }
                step.op.cpu(*size, &mut bufs);
                for (buf, words) in step.bufs.iter().zip(bufs).rev() {
                    self.memory[buf.id as usize] = words;
                }
            }
        }
        read.map(|(buf, words)| self.memory[buf.id as usize][..words as usize].to_vec()).unwrap_or_default()
    }
}
