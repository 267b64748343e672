//! The GPU: adapter, device, queue, buffers and pipelines. Only this module and `caps` use wgpu.

mod adapter;
mod experimental;
mod pipelines;
mod profile;
mod submit;

pub use adapter::AdapterInfo;
pub(crate) use pipelines::Prepared;
pub use submit::Pending;

use crate::buf::Buf;
use crate::caps::{Caps, Deny};
use crate::kernel::Const;
use crate::{Error, Result};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

/// Cooperative matrices are used only if the adapter has this much workgroup memory. Most adapters have it.
const COOPMAT_WORKGROUP_BYTES: u32 = 32 << 10;
/// The most workgroup memory that is requested from a device.
const WORKGROUP_BYTES: u32 = 48 << 10;

/// Which adapter to use and how.
#[derive(Clone, Debug, Default)]
pub struct GpuOptions {
    /// `vulkan`, `metal`, `dx12` or `gl`. `None` stands for all of them except `gl`.
    pub backend: Option<String>,
    /// An index of [`Gpu::adapters`], or a part of an adapter's name.
    pub adapter: Option<String>,
    /// Optional features that are not used.
    pub deny: Deny,
    /// For tests: request only the limits that every WebGPU device has, use timestamps only where a browser has them,
    /// and use the kernels for real GPUs even on a GPU in software.
    pub floor: bool,
    /// In a browser: the caller makes sure that the feature `subgroups` is requested from the device. wgpu does not
    /// know that feature there.
    pub page_subgroups: bool,
    /// In a browser, where wgpu cannot tell: the adapter is a GPU in software.
    pub software: bool,
    /// A function that changes a kernel's text before it is compiled. Tests use it to break assumptions that no kernel
    /// may make.
    pub rewrite: Option<fn(String) -> String>,
}

/// Errors that wgpu reports outside of any call. The first one is kept, and the next call returns it.
#[derive(Clone, Debug, Default)]
struct Faults(Arc<Mutex<Option<String>>>);

impl Faults {
    fn put(&self, why: String) {
        self.0.lock().unwrap_or_else(|e| e.into_inner()).get_or_insert(why);
    }

    fn check(&self) -> Result<()> {
        match self.0.lock().unwrap_or_else(|e| e.into_inner()).clone() {
            Some(why) => Err(Error::Device { why }),
            None => Ok(()),
        }
    }
}

/// Adapter, device, queue and pipelines.
#[derive(Debug)]
pub struct Gpu {
    device: wgpu::Device,
    queue: wgpu::Queue,
    caps: Caps,
    rewrite: Option<fn(String) -> String>,
    info: AdapterInfo,
    faults: Faults,
    lost: Arc<AtomicBool>,
    buffers: Vec<Option<wgpu::Buffer>>,
    pipelines: HashMap<(&'static str, Vec<Const>), (wgpu::ComputePipeline, wgpu::BindGroupLayout)>,
    /// Idle buffers for reading results back, of several sizes.
    readbacks: Vec<wgpu::Buffer>,
    /// Number of buffers made so far.
    made: usize,
}

impl Gpu {
    /// Opens a device.
    ///
    /// # Errors
    /// [`Error::NoAdapter`] if no adapter fits the options, [`Error::Device`] if the driver refuses the request.
    pub async fn new(options: &GpuOptions) -> Result<Gpu> {
        let list = Self::enumerate(options.backend.as_deref()).await?;
        let any = !list.is_empty();
        let found: Vec<&str> = list.iter().map(|(info, _)| info.name.as_str()).collect();
        let found = if found.is_empty() { "none found".to_string() } else { format!("found: {}", found.join(", ")) };
        let wanted = options.adapter.as_deref();
        let fits = |info: &AdapterInfo| match wanted {
            None => true,
            Some(text) => match text.parse::<usize>() {
                Ok(index) => info.index == index,
                Err(_) => info.name.to_lowercase().contains(&text.to_lowercase()),
            },
        };
        let Some((info, adapter)) = list.into_iter().find(|(info, _)| fits(info)) else {
            let (why, next) = match (wanted, any, &options.backend) {
                (Some(text), true, _) => {
                    (format!("no adapter matches `{text}` ({found})"), "Choose one that `nemoflash devices` lists")
                }
                (_, _, Some(backend)) => (
                    format!("none found with the interface `{backend}`"),
                    "Install its driver, or use an interface that this system has",
                ),
                _ => (
                    found,
                    "Install a Vulkan, Metal or DX12 driver (on Debian and Ubuntu: `apt install mesa-vulkan-drivers`)",
                ),
            };
            return Err(Error::NoAdapter { why, next });
        };
        Self::open(adapter, info, options).await
    }

    async fn open(adapter: wgpu::Adapter, info: AdapterInfo, options: &GpuOptions) -> Result<Gpu> {
        use wgpu::Features as F;
        let wanted = F::SHADER_F16 | F::SUBGROUP | F::TIMESTAMP_QUERY | F::TIMESTAMP_QUERY_INSIDE_PASSES;
        let mut features = adapter.features() & wanted;
        features.set(F::SHADER_F16, features.contains(F::SHADER_F16) && !options.deny.f16);
        features.set(F::SUBGROUP, features.contains(F::SUBGROUP) && !options.deny.subgroups);
        features.set(
            F::TIMESTAMP_QUERY_INSIDE_PASSES,
            features.contains(F::TIMESTAMP_QUERY_INSIDE_PASSES) && !options.floor,
        );
        let coopmat = info.coopmat && !options.deny.coopmat && !options.deny.f16;
        features.set(F::EXPERIMENTAL_COOPERATIVE_MATRIX, coopmat);
        let mut limits = wgpu::Limits::default();
        if !options.floor {
            let have = adapter.limits();
            // The largest tiles of matmul need this much. Other kernels are tuned for the default of 16 KiB.
            limits.max_compute_workgroup_storage_size = have.max_compute_workgroup_storage_size.min(WORKGROUP_BYTES);
            limits.max_buffer_size = have.max_buffer_size;
            limits.max_storage_buffer_binding_size = have.max_storage_buffer_binding_size;
        }
        let (device, queue) = adapter
            .request_device(&wgpu::DeviceDescriptor {
                label: Some("nemoflash"),
                required_features: features,
                required_limits: limits,
                experimental_features: if coopmat { experimental::allowed() } else { Default::default() },
                memory_hints: wgpu::MemoryHints::Performance,
                ..Default::default()
            })
            .await
            .map_err(|e| Error::Device { why: format!("{}: {e}", info.name) })?;
        // Only in a web page can a feature be requested that wgpu does not know.
        let page_subgroups = cfg!(target_arch = "wasm32") && options.page_subgroups;
        let software = !options.floor && (options.software || info.kind == "cpu");
        let caps = Caps::new(&device, &adapter.get_info(), options.deny, page_subgroups, software);
        let faults = Faults::default();
        let uncaptured = faults.clone();
        device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| uncaptured.put(error.to_string())));
        let lost = Arc::new(AtomicBool::new(false));
        let (gone, last) = (lost.clone(), faults.clone());
        device.set_device_lost_callback(move |reason, message| {
            if reason != wgpu::DeviceLostReason::Destroyed {
                gone.store(true, Relaxed);
                last.put(format!("the device was lost ({reason:?}): {message}"));
            }
        });
        let (buffers, pipelines, readbacks) = (vec![], HashMap::new(), vec![]);
        let rewrite = options.rewrite;
        Ok(Gpu { device, queue, caps, rewrite, info, faults, lost, buffers, pipelines, readbacks, made: 0 })
    }

    /// What kernels may rely on.
    pub fn caps(&self) -> &Caps {
        &self.caps
    }

    /// The adapter in use.
    pub fn info(&self) -> &AdapterInfo {
        &self.info
    }

    /// Number of buffers and pipelines made so far. Replaying a plan makes none.
    pub fn made(&self) -> usize {
        self.made + self.pipelines.len()
    }

    /// Whether [`Gpu::profile`] can time a dispatch in the pass of its step. Otherwise each dispatch gets a pass of
    /// its own.
    pub fn stamps_inside(&self) -> bool {
        self.device.features().contains(wgpu::Features::TIMESTAMP_QUERY_INSIDE_PASSES)
    }

    /// Whether the device was lost or does not answer. Any other error is that of one operator, and another device on
    /// the same adapter may work.
    pub fn lost(&self) -> bool {
        self.lost.load(Relaxed)
    }

    fn buffer(&self, buf: Buf) -> &wgpu::Buffer {
        self.buffers[buf.id as usize].as_ref().expect("a freed buffer is not used")
    }

    pub(crate) async fn alloc(&mut self, name: &str, words: u64) -> Result<u32> {
        use wgpu::BufferUsages as U;
        let buffer = self.new_buffer(name, words * 4, U::STORAGE | U::COPY_SRC | U::COPY_DST).await?;
        self.buffers.push(Some(buffer));
        Ok(self.buffers.len() as u32 - 1)
    }

    async fn new_buffer(&mut self, name: &str, size: u64, usage: wgpu::BufferUsages) -> Result<wgpu::Buffer> {
        self.made += 1;
        let memory = self.device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let buffer = self.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some(name),
            size,
            usage,
            mapped_at_creation: false,
        });
        match memory.pop().await {
            Some(_) => Err(Error::OutOfMemory { what: name.into(), bytes: size }),
            None => self.faults.check().map(|()| buffer),
        }
    }

    pub(crate) fn free(&mut self, buf: Buf) {
        self.buffers[buf.id as usize] = None;
    }

    pub(crate) fn clear(&mut self) {
        self.buffers.clear();
    }

    pub(crate) fn write(&mut self, buf: Buf, at: u64, words: &[u32]) {
        self.queue.write_buffer(self.buffer(buf), at * 4, bytemuck::cast_slice(words));
    }

    pub(crate) fn copy(&mut self, copies: &[(Buf, u64, Buf, u64, u64)]) {
        let mut encoder = self.device.create_command_encoder(&Default::default());
        for &(from, at, to, there, words) in copies {
            encoder.copy_buffer_to_buffer(self.buffer(from), at * 4, self.buffer(to), there * 4, words * 4);
        }
        self.queue.submit([encoder.finish()]);
    }
}
