//! Where the time of a plan goes on the device.

use super::Gpu;
use crate::batch::Size;
use crate::plan::Plan;
use crate::{Error, Result};

/// A query set holds at most so many timestamps.
const MOST: usize = 4096;

impl Gpu {
    /// Runs prepared plans as one step and returns the device's seconds from the end of each of its dispatches to the
    /// end of the next: the first entry is for the first dispatch.
    ///
    /// # Errors
    /// [`Error::Limit`] where the device has no timestamps inside passes, [`Error::Device`].
    pub async fn profile(&mut self, plans: &[(&Plan, Size)]) -> Result<Vec<f64>> {
        let count = plans.iter().map(|(plan, _)| plan.steps.len()).sum::<usize>() + 1;
        if !self.device.features().contains(wgpu::Features::TIMESTAMP_QUERY_INSIDE_PASSES) || count > MOST {
            let (what, limit) = ("a profile of single dispatches".into(), "timestamps inside passes");
            return Err(Error::Limit { what, limit, need: count as u64, have: 0, next: "Time whole steps instead" });
        }
        let queries = self.device.create_query_set(&wgpu::QuerySetDescriptor {
            label: Some("profile"),
            ty: wgpu::QueryType::Timestamp,
            count: count as u32,
        });
        let bytes = 8 * count as u64;
        let usage = wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC;
        let resolved = self.new_buffer("timestamps", bytes, usage).await?;
        let mut encoder = self.device.create_command_encoder(&Default::default());
        let mut pass = encoder.begin_compute_pass(&Default::default());
        pass.write_timestamp(&queries, 0);
        let mut next = 1;
        for (plan, size) in plans {
            self.replay(&mut pass, plan, *size, &mut |pass| {
                pass.write_timestamp(&queries, next);
                next += 1;
            });
        }
        drop(pass);
        encoder.resolve_query_set(&queries, 0..count as u32, &resolved, 0);
        let target = self.readback(bytes);
        encoder.copy_buffer_to_buffer(&resolved, 0, &target, 0, bytes);
        let pending = self.send(encoder, Some((target, bytes)));
        let words = self.collect(pending).await?;
        let ticks: Vec<u64> = words.chunks_exact(2).map(|w| u64::from(w[0]) | u64::from(w[1]) << 32).collect();
        let period = f64::from(self.queue.get_timestamp_period()) * 1e-9;
        Ok(ticks.windows(2).map(|pair| pair[1].saturating_sub(pair[0]) as f64 * period).collect())
    }
}
