//! How long the dispatches of a plan take on the device.

use super::Gpu;
use crate::batch::Size;
use crate::plan::Plan;
use crate::{Error, Result};

/// Most timestamps in a query set.
const MOST: usize = 4096;

impl Gpu {
    /// Runs prepared plans as one step, and returns the seconds that each dispatch took on the device. Where the device
    /// has timestamps inside passes, a dispatch is timed from the end of the previous one to its own end. Where it has
    /// them only at the ends of passes, as in a browser, each dispatch runs in a pass of its own.
    ///
    /// # Errors
    /// [`Error::Limit`] where the device has no timestamps, [`Error::Device`].
    pub async fn profile(&mut self, plans: &[(&Plan, Size)]) -> Result<Vec<f64>> {
        let inside = self.stamps_inside();
        let steps = plans.iter().map(|(plan, _)| plan.steps.len()).sum::<usize>();
        let count = if inside { steps + 1 } else { 2 * steps };
        if !self.caps.timestamps || count > MOST {
            let (what, limit) = ("a profile of single dispatches".into(), "timestamps");
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
        let dispatches = plans.iter().flat_map(|(plan, size)| (0..plan.steps.len()).map(move |at| (*plan, at, *size)));
        if inside {
            let mut pass = encoder.begin_compute_pass(&Default::default());
            pass.write_timestamp(&queries, 0);
            for (next, (plan, at, size)) in (1..).zip(dispatches) {
                self.dispatch(&mut pass, plan, at, size);
                pass.write_timestamp(&queries, next);
            }
        } else {
            for (next, (plan, at, size)) in (0..).step_by(2).zip(dispatches) {
                let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor {
                    label: None,
                    timestamp_writes: Some(wgpu::ComputePassTimestampWrites {
                        query_set: &queries,
                        beginning_of_pass_write_index: Some(next),
                        end_of_pass_write_index: Some(next + 1),
                    }),
                });
                self.dispatch(&mut pass, plan, at, size);
            }
        }
        encoder.resolve_query_set(&queries, 0..count as u32, &resolved, 0);
        let target = self.readback(bytes);
        encoder.copy_buffer_to_buffer(&resolved, 0, &target, 0, bytes);
        let pending = self.send(encoder, Some((target, bytes)));
        let words = self.collect(pending).await?;
        let ticks: Vec<u64> = words.chunks_exact(2).map(|w| u64::from(w[0]) | u64::from(w[1]) << 32).collect();
        let period = f64::from(self.queue.get_timestamp_period()) * 1e-9;
        let pairs = ticks.windows(2).step_by(if inside { 1 } else { 2 });
        Ok(pairs.map(|pair| pair[1].saturating_sub(pair[0]) as f64 * period).collect())
    }
}
