//! Submits plans and reads results back.

use super::Gpu;
use crate::batch::Size;
use crate::buf::Buf;
use crate::plan::Plan;
use crate::{Error, Result};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// How long a submission may take before the device counts as hung.
const HUNG: Duration = Duration::from_secs(120);

/// A submission whose result has not arrived yet.
#[derive(Debug)]
pub struct Pending {
    index: wgpu::SubmissionIndex,
    /// Notified when the words are mapped, or when the work is done if there are no words.
    done: futures_channel::oneshot::Receiver<Result<(), wgpu::BufferAsyncError>>,
    read: Option<(wgpu::Buffer, u64)>,
}

impl Gpu {
    pub(crate) fn submit(&mut self, plans: &[(&Plan, Size)], read: Option<(Buf, u64)>) -> Result<Pending> {
        self.faults.check()?;
        let mut encoder = self.device.create_command_encoder(&Default::default());
        if !plans.is_empty() {
            let mut pass = encoder.begin_compute_pass(&Default::default());
            for (plan, size) in plans {
                (0..plan.steps.len()).for_each(|at| self.dispatch(&mut pass, plan, at, *size));
            }
        }
        let read = read.map(|(buf, words)| {
            let target = self.readback(words * 4);
            encoder.copy_buffer_to_buffer(self.buffer(buf), 0, &target, 0, words * 4);
            (target, words * 4)
        });
        Ok(self.send(encoder, read))
    }

    /// Encodes a dispatch of a prepared plan.
    pub(super) fn dispatch(&self, pass: &mut wgpu::ComputePass, plan: &Plan, at: usize, size: Size) {
        let prepared = plan.prepared.as_ref().expect("a plan is prepared before it runs");
        let (pipeline, group) = &prepared.steps[at];
        let [x, y, z] = plan.steps[at].op.grid(size, &self.caps);
        pass.set_pipeline(pipeline);
        pass.set_bind_group(0, group, &[]);
        pass.dispatch_workgroups(x, y, z);
    }

    /// Submits the commands. If `read` is given, that many bytes of its buffer are mapped afterwards.
    pub(super) fn send(&self, encoder: wgpu::CommandEncoder, read: Option<(wgpu::Buffer, u64)>) -> Pending {
        let index = self.queue.submit([encoder.finish()]);
        let (sender, done) = futures_channel::oneshot::channel();
        match &read {
            Some((buffer, bytes)) => buffer.slice(..*bytes).map_async(wgpu::MapMode::Read, |result| {
                let _ = sender.send(result);
            }),
            None => self.queue.on_submitted_work_done(|| {
                let _ = sender.send(Ok(()));
            }),
        }
        Pending { index, done, read }
    }

    /// A buffer of this size for reading results back. Idle ones are used again.
    pub(super) fn readback(&mut self, bytes: u64) -> wgpu::Buffer {
        if let Some(i) = self.readbacks.iter().position(|buffer| buffer.size() == bytes) {
            return self.readbacks.swap_remove(i);
        }
        self.made += 1;
        self.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("readback"),
            size: bytes,
            usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        })
    }

    /// Waits until the device has done all submitted work.
    ///
    /// # Errors
    /// [`Error::Device`].
    pub async fn wait(&mut self) -> Result<()> {
        let pending = self.submit(&[], None)?;
        self.collect(pending).await.map(|_| ())
    }

    pub(crate) async fn collect(&mut self, pending: Pending) -> Result<Vec<u32>> {
        // In a browser this returns at once, and the browser wakes the future below.
        let wait = wgpu::PollType::Wait { submission_index: Some(pending.index), timeout: Some(HUNG) };
        // The first error says more than the errors that followed from it.
        let device_error = |why: String| self.faults.check().err().unwrap_or(Error::Device { why });
        self.device.poll(wait).map_err(|e| {
            self.lost.store(true, Relaxed);
            device_error(format!("waiting for the GPU: {e}"))
        })?;
        let done = pending.done.await.map_err(|_| device_error("the result never came back".into()))?;
        done.map_err(|e| device_error(format!("mapping the result: {e}")))?;
        let Some((buffer, bytes)) = pending.read else { return self.faults.check().map(|()| vec![]) };
        let words = match buffer.slice(..bytes).get_mapped_range() {
            Ok(view) => bytemuck::pod_collect_to_vec(&view),
            Err(e) => return Err(device_error(format!("mapping the result: {e}"))),
        };
        buffer.unmap();
        // Buffers for the small results of every step are kept. Large reads are rare, and their buffers are not kept.
        if bytes <= 1 << 16 && self.readbacks.len() < 16 {
            self.readbacks.push(buffer);
        }
        self.faults.check().map(|()| words)
    }
}
