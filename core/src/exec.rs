//! Where plans run: a GPU, the CPU twins, or nowhere.

use crate::batch::Size;
use crate::buf::{Buf, Elem};
use crate::caps::Caps;
use crate::cpu::Cpu;
use crate::dry::Dry;
use crate::gpu::{Gpu, Pending};
use crate::plan::Plan;
use crate::{Error, Result};

/// A device with its memory. The same plans run on every kind.
#[derive(Debug)]
pub enum Exec {
    /// Plans are encoded into one compute pass and submitted.
    Gpu(Box<Gpu>),
    /// Plans run the CPU twin of each operator, one after the other, on the calling thread.
    Cpu(Cpu),
    /// A dry run: plans are recorded and do not run.
    Dry(Dry),
}

/// The result of a submission, which may still be on its way from the device.
#[derive(Debug)]
#[must_use = "collect it with Exec::collect"]
pub enum Ticket {
    /// The words are being copied to a mapped buffer.
    Gpu(Pending),
    /// The words are here already.
    Here(Vec<u32>),
}

impl Exec {
    /// Execution on the CPU twins.
    pub fn cpu() -> Exec {
        Exec::Cpu(Cpu::default())
    }

    /// Execution on the CPU twins, with a limit of the bytes of all buffers together.
    pub fn cpu_within(bytes: u64) -> Exec {
        Exec::Cpu(Cpu::within(bytes))
    }

    /// A device for dry runs, with the limits and features `caps`: it allocates nothing and computes nothing.
    pub fn dry(caps: &Caps) -> Exec {
        Exec::Dry(Dry::new(caps))
    }

    /// What kernels may rely on.
    pub fn caps(&self) -> &Caps {
        match self {
            Exec::Gpu(gpu) => gpu.caps(),
            Exec::Cpu(_) => &Caps::CPU,
            Exec::Dry(dry) => dry.caps(),
        }
    }

    /// Refuses an allocation of `bytes` bytes in all, before any buffer of it is made, if it is known to be too large.
    ///
    /// # Errors
    /// [`Error::Limit`].
    pub fn room(&self, what: &str, bytes: u64) -> Result<()> {
        match self {
            Exec::Cpu(cpu) => cpu.room(what, bytes),
            Exec::Gpu(_) | Exec::Dry(_) => Ok(()),
        }
    }

    /// Allocates a buffer of `len` elements, which is filled with zeros.
    ///
    /// # Errors
    /// [`Error::Limit`] if the device cannot bind it in one piece, [`Error::OutOfMemory`].
    pub async fn alloc(&mut self, name: &str, len: u64, elem: Elem) -> Result<Buf> {
        let words = elem.words(len.max(1)).next_multiple_of(4);
        let caps = self.caps();
        for (limit, have) in [("maxStorageBufferBindingSize", caps.max_binding), ("maxBufferSize", caps.max_buffer)] {
            if words * 4 > have {
                let next = "Use a shorter context, fewer slots, or a device with larger buffers";
                return Err(Error::Limit { what: name.into(), limit, need: words * 4, have, next });
            }
        }
        let id = match self {
            Exec::Gpu(gpu) => gpu.alloc(name, words).await?,
            Exec::Cpu(cpu) => cpu.alloc(name, words)?,
            Exec::Dry(dry) => dry.alloc(),
        };
        Ok(Buf { id, len, elem })
    }

    /// Writes words into a buffer, from word `at` on.
    pub fn write(&mut self, buf: Buf, at: u64, words: &[u32]) {
        assert!(at + words.len() as u64 <= buf.elem.words(buf.len), "write past the end of a buffer");
        match self {
            Exec::Gpu(gpu) => gpu.write(buf, at, words),
            Exec::Cpu(cpu) => cpu.write(buf, at, words),
            Exec::Dry(_) => {}
        }
    }

    /// Copies words between two different buffers, in order with steps and writes. Each entry is (from, word offset,
    /// to, word offset, number of words).
    pub fn copy(&mut self, copies: &[(Buf, u64, Buf, u64, u64)]) {
        for (from, at, to, there, words) in copies {
            assert!(from.id != to.id && at + words <= from.elem.words(from.len), "copy out of bounds");
            assert!(there + words <= to.elem.words(to.len), "copy out of bounds");
        }
        match self {
            Exec::Gpu(gpu) => gpu.copy(copies),
            Exec::Cpu(cpu) => cpu.copy(copies),
            Exec::Dry(_) => {}
        }
    }

    /// Makes the pipelines, bind groups and uniform buffer of a plan, so that replaying it allocates nothing.
    pub async fn prepare(&mut self, plan: &mut Plan) -> Result<()> {
        match self {
            Exec::Gpu(gpu) => gpu.prepare(plan).await,
            Exec::Cpu(_) => Ok(()),
            Exec::Dry(dry) => {
                dry.prepare(plan);
                Ok(())
            }
        }
    }

    /// Runs prepared plans one after the other, in one pass and one submission. Then begins to read `read`, which is
    /// (buffer, number of words).
    pub fn submit(&mut self, plans: &[(&Plan, Size)], read: Option<(Buf, u64)>) -> Result<Ticket> {
        match self {
            Exec::Gpu(gpu) => gpu.submit(plans, read).map(Ticket::Gpu),
            Exec::Cpu(cpu) => Ok(Ticket::Here(cpu.run(plans, read))),
            Exec::Dry(_) => Ok(Ticket::Here(Dry::read(read))),
        }
    }

    /// Waits for a submission and returns what it read.
    pub async fn collect(&mut self, ticket: Ticket) -> Result<Vec<u32>> {
        match (self, ticket) {
            (Exec::Gpu(gpu), Ticket::Gpu(pending)) => gpu.collect(pending).await,
            (Exec::Cpu(cpu), Ticket::Here(words)) => Ok(cpu.collect(words).await),
            (Exec::Dry(_), Ticket::Here(words)) => Ok(words),
            _ => Err(Error::Device { why: "a ticket of another device".into() }),
        }
    }

    /// Waits until everything that was submitted is done.
    pub async fn wait(&mut self) -> Result<()> {
        let ticket = self.submit(&[], None)?;
        self.collect(ticket).await.map(|_| ())
    }

    /// Reads a whole buffer.
    pub async fn read(&mut self, buf: Buf) -> Result<Vec<u32>> {
        let ticket = self.submit(&[], Some((buf, buf.elem.words(buf.len))))?;
        self.collect(ticket).await
    }

    /// Frees all buffers. No handle to them may be used again.
    pub(crate) fn clear(&mut self) {
        match self {
            Exec::Gpu(gpu) => gpu.clear(),
            Exec::Cpu(cpu) => cpu.clear(),
            Exec::Dry(_) => {}
        }
    }

    /// Frees a buffer. Its handle may not be used again.
    pub fn free(&mut self, buf: Buf) {
        match self {
            Exec::Gpu(gpu) => gpu.free(buf),
            Exec::Cpu(cpu) => cpu.free(buf),
            Exec::Dry(_) => {}
        }
    }
}
