//! What each dispatch of a step takes on the device.

use super::{Ends, Engine};
use crate::batch::{Batch, Size};
use crate::exec::Exec;
use crate::{Error, Result};

/// One dispatch of a step.
#[derive(Clone, Debug, PartialEq)]
pub struct Dispatch {
    /// The part of the model: `embedding`, a kind of block, `head` or `pick`.
    pub part: &'static str,
    /// The kernel.
    pub kernel: &'static str,
    /// The operator with its numbers.
    pub op: String,
    /// Bytes that it moves at least.
    pub bytes: u64,
    /// Seconds on the device, from the end of the dispatch before it to its own end.
    pub seconds: f64,
}

impl Engine {
    /// Runs one decode step of a slot that holds a sequence, and times each dispatch of it. The slot's position stays
    /// where it was, so that the same step can be profiled again, but its states have moved: the sequence is spent.
    ///
    /// # Errors
    /// [`Error::Limit`] where the device has no timestamps inside passes, and on the CPU; as [`Engine::step`].
    pub async fn profile(&mut self, slot: u32, token: u32) -> Result<Vec<Dispatch>> {
        let position = self.feed(slot, &[token])?;
        let mut batch = Batch::default();
        batch.push(slot, position, &[token], true);
        self.prepare(1, true, Ends::Rows(1)).await?;
        self.exec.write(self.batch, 0, &batch.words());
        let size = Size { rows: 1, segments: 1 };
        let plans = [&self.bodies[&(1, true)], &self.ends[&Ends::Rows(1)]];
        let Exec::Gpu(gpu) = &mut self.exec else {
            let (what, limit) = ("a profile of single dispatches".into(), "timestamps inside passes");
            return Err(Error::Limit { what, limit, need: 1, have: 0, next: "Use a GPU" });
        };
        let seconds = gpu.profile(&plans.map(|plan| (plan, size))).await?;
        let steps = plans.iter().flat_map(|plan| &plan.steps);
        Ok(steps
            .zip(seconds)
            .map(|(step, seconds)| Dispatch {
                part: step.part,
                kernel: step.op.kernel().name,
                op: format!("{:?}", step.op),
                bytes: step.bytes(size),
                seconds,
            })
            .collect())
    }
}
