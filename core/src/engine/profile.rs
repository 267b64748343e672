//! Times each dispatch of a step on the device.

use super::{Ends, Engine};
use crate::batch::{Batch, Size};
use crate::exec::Exec;
use crate::plan::Part;
use crate::{Error, Result};

/// One dispatch of a step.
#[derive(Clone, Debug, PartialEq)]
pub struct Dispatch {
    /// The part of the model that it belongs to.
    pub part: Part,
    /// The kernel.
    pub kernel: &'static str,
    /// The operator with its numbers.
    pub op: String,
    /// Bytes that it moves at least.
    pub bytes: u64,
    /// Seconds on the device: see [`Gpu::profile`](crate::Gpu::profile).
    pub seconds: f64,
}

impl Engine {
    /// Runs the next tokens of a slot in one step, chooses the token after them, and times each dispatch. Give one
    /// token for a decode step, and more for prefill. The slot's position does not change, so the same step can be
    /// profiled again. But its recurrent states have changed, so the sequence cannot be continued.
    ///
    /// # Errors
    /// [`Error::Limit`] where the device has no timestamps, and on the CPU; as [`Engine::step`].
    pub async fn profile(&mut self, slot: u32, tokens: &[u32]) -> Result<Vec<Dispatch>> {
        let position = self.feed(slot, tokens)?;
        let mut batch = Batch::default();
        batch.push(slot, position, tokens, true);
        let (rows, steps) = (self.rows_for(tokens.len())?, tokens.len() == 1);
        let ends = if steps { Ends::Rows(1) } else { Ends::Gathered(1) };
        self.prepare(rows, steps, ends).await?;
        self.exec.write(self.batch, 0, &batch.words());
        let sizes = [batch.size(), Size { rows: 1, segments: 1 }];
        let plans = [&self.bodies[&(rows, steps)], &self.ends[&ends]];
        let Exec::Gpu(gpu) = &mut self.exec else {
            let (what, limit) = ("a profile of single dispatches".into(), "timestamps");
            return Err(Error::Limit { what, limit, need: 1, have: 0, next: "Use a GPU" });
        };
        let seconds = gpu.profile(&[(plans[0], sizes[0]), (plans[1], sizes[1])]).await?;
        let steps = plans.iter().zip(sizes).flat_map(|(plan, size)| plan.steps.iter().map(move |step| (step, size)));
        Ok(steps
            .zip(seconds)
            .map(|((step, size), seconds)| Dispatch {
                part: step.part,
                kernel: step.op.kernel().name,
                op: format!("{:?}", step.op),
                bytes: step.bytes(size),
                seconds,
            })
            .collect())
    }
}
