//! Adapter, device, queue, buffers and pipelines: everything that touches a GPU.

use crate::batch::Size;
use crate::buf::Buf;
use crate::caps::{Caps, Deny};
use crate::kernel::{Access, Const, Kernel};
use crate::plan::{Plan, Step};
use crate::{Error, Result};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// How long a submission may take before the device counts as hung.
const HUNG: Duration = Duration::from_secs(120);

/// Which adapter to use and how.
#[derive(Clone, Debug, Default)]
pub struct GpuOptions {
    /// `vulkan`, `metal`, `dx12` or `gl`; all but `gl` if not given.
    pub backend: Option<String>,
    /// An index of [`Gpu::adapters`], or a part of an adapter's name.
    pub adapter: Option<String>,
    /// Optional features not to use.
    pub deny: Deny,
    /// Ask for the limits that every WebGPU device has and no more.
    pub floor: bool,
    /// In a browser: the caller sees to it that the device is asked for the feature `subgroups`, which wgpu does not
    /// know there.
    pub page_subgroups: bool,
}

/// One adapter of this machine.
#[derive(Clone, Debug, PartialEq)]
pub struct AdapterInfo {
    /// The index that `--adapter` takes.
    pub index: usize,
    /// The device's name.
    pub name: String,
    /// `vulkan`, `metal`, `dx12`, `gl` or `webgpu`.
    pub backend: String,
    /// `discrete`, `integrated`, `virtual`, `cpu` or `other`.
    pub kind: &'static str,
    /// Driver name and version.
    pub driver: String,
    /// f16 arithmetic.
    pub f16: bool,
    /// Smallest and largest subgroup, where subgroup operations exist.
    pub subgroups: Option<(u32, u32)>,
    /// Cooperative matrices.
    pub coopmat: bool,
    /// Timestamp queries.
    pub timestamps: bool,
    /// Largest storage binding in bytes.
    pub max_binding: u64,
    /// Largest buffer in bytes.
    pub max_buffer: u64,
}

impl AdapterInfo {
    fn new(index: usize, adapter: &wgpu::Adapter) -> AdapterInfo {
        let (info, features, limits) = (adapter.get_info(), adapter.features(), adapter.limits());
        AdapterInfo {
            index,
            name: info.name,
            backend: info.backend.to_string(),
            kind: match info.device_type {
                wgpu::DeviceType::DiscreteGpu => "discrete",
                wgpu::DeviceType::IntegratedGpu => "integrated",
                wgpu::DeviceType::VirtualGpu => "virtual",
                wgpu::DeviceType::Cpu => "cpu",
                wgpu::DeviceType::Other => "other",
            },
            driver: format!("{} {}", info.driver, info.driver_info).trim().to_string(),
            f16: features.contains(wgpu::Features::SHADER_F16),
            subgroups: features
                .contains(wgpu::Features::SUBGROUP)
                .then_some((info.subgroup_min_size, info.subgroup_max_size)),
            coopmat: features.contains(wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX),
            timestamps: features.contains(wgpu::Features::TIMESTAMP_QUERY),
            max_binding: limits.max_storage_buffer_binding_size,
            max_buffer: limits.max_buffer_size,
        }
    }

    /// Real hardware before software, fast before slow.
    fn rank(&self) -> usize {
        let kinds = ["discrete", "integrated", "other", "virtual", "cpu"];
        kinds.iter().position(|kind| *kind == self.kind).unwrap_or(kinds.len())
    }
}

/// Errors that wgpu reports outside of any call: the first one is kept and becomes the next call's error.
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

/// Adapter, device, queue and pipelines. Made once.
#[derive(Debug)]
pub struct Gpu {
    device: wgpu::Device,
    queue: wgpu::Queue,
    caps: Caps,
    info: AdapterInfo,
    faults: Faults,
    lost: Arc<AtomicBool>,
    buffers: Vec<Option<wgpu::Buffer>>,
    pipelines: HashMap<(&'static str, Vec<Const>), (wgpu::ComputePipeline, wgpu::BindGroupLayout)>,
    /// Mapped-when-idle buffers that results come back through, by size in bytes.
    readbacks: Vec<wgpu::Buffer>,
    /// Buffers made so far.
    made: usize,
}

/// What a GPU needs to replay a plan.
#[derive(Debug)]
pub(crate) struct Prepared {
    steps: Vec<(wgpu::ComputePipeline, wgpu::BindGroup)>,
}

/// A submission whose result is on its way.
#[derive(Debug)]
pub struct Pending {
    index: wgpu::SubmissionIndex,
    /// Told when the words are mapped; when the work is done, if there are none.
    done: futures_channel::oneshot::Receiver<Result<(), wgpu::BufferAsyncError>>,
    read: Option<(wgpu::Buffer, u64)>,
}

fn instance(backend: Option<&str>) -> Result<(wgpu::Instance, wgpu::Backends)> {
    let backends = match backend {
        None => wgpu::Backends::PRIMARY,
        Some("vulkan") => wgpu::Backends::VULKAN,
        Some("metal") => wgpu::Backends::METAL,
        Some("dx12") => wgpu::Backends::DX12,
        Some("gl") => wgpu::Backends::GL,
        Some(other) => {
            let why = format!("`{other}` is not one of vulkan, metal, dx12, gl");
            return Err(Error::Parameter { name: "--backend", why });
        }
    };
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    descriptor.backends = backends;
    Ok((wgpu::Instance::new(descriptor), backends))
}

impl Gpu {
    /// The adapters of this machine, in the order of preference.
    pub async fn adapters(backend: Option<&str>) -> Result<Vec<AdapterInfo>> {
        Ok(Self::enumerate(backend).await?.into_iter().map(|(info, _)| info).collect())
    }

    async fn enumerate(backend: Option<&str>) -> Result<Vec<(AdapterInfo, wgpu::Adapter)>> {
        let (instance, backends) = instance(backend)?;
        #[cfg(not(target_arch = "wasm32"))]
        let adapters = instance.enumerate_adapters(backends).await;
        // A page is given one adapter; it cannot list them.
        #[cfg(target_arch = "wasm32")]
        let adapters = {
            let _ = backends;
            let options = wgpu::RequestAdapterOptions {
                power_preference: wgpu::PowerPreference::HighPerformance,
                ..Default::default()
            };
            Vec::from_iter(instance.request_adapter(&options).await)
        };
        let mut list: Vec<_> = adapters
            .into_iter()
            .filter(|a| a.get_downlevel_capabilities().flags.contains(wgpu::DownlevelFlags::COMPUTE_SHADERS))
            .map(|a| (AdapterInfo::new(0, &a), a))
            .collect();
        list.sort_by_key(|(info, _)| info.rank());
        for (index, (info, _)) in list.iter_mut().enumerate() {
            info.index = index;
        }
        Ok(list)
    }

    /// Opens a device.
    ///
    /// # Errors
    /// [`Error::NoAdapter`] if no adapter fits the options, [`Error::Device`] if the driver refuses.
    pub async fn new(options: &GpuOptions) -> Result<Gpu> {
        let list = Self::enumerate(options.backend.as_deref()).await?;
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
            let why = match wanted {
                Some(text) => format!("no adapter matches `{text}` ({found})"),
                None => found,
            };
            return Err(Error::NoAdapter { why });
        };
        Self::open(adapter, info, options).await
    }

    async fn open(adapter: wgpu::Adapter, info: AdapterInfo, options: &GpuOptions) -> Result<Gpu> {
        let wanted = wgpu::Features::SHADER_F16 | wgpu::Features::SUBGROUP | wgpu::Features::TIMESTAMP_QUERY;
        let mut features = adapter.features() & wanted;
        features.set(wgpu::Features::SHADER_F16, features.contains(wgpu::Features::SHADER_F16) && !options.deny.f16);
        features.set(wgpu::Features::SUBGROUP, features.contains(wgpu::Features::SUBGROUP) && !options.deny.subgroups);
        let mut limits = wgpu::Limits::default();
        if !options.floor {
            let have = adapter.limits();
            limits.max_buffer_size = have.max_buffer_size;
            limits.max_storage_buffer_binding_size = have.max_storage_buffer_binding_size;
        }
        let (device, queue) = adapter
            .request_device(&wgpu::DeviceDescriptor {
                label: Some("nemoflash"),
                required_features: features,
                required_limits: limits,
                memory_hints: wgpu::MemoryHints::Performance,
                ..Default::default()
            })
            .await
            .map_err(|e| Error::Device { why: format!("{}: {e}", info.name) })?;
        // Only a page's device can have been asked for what wgpu does not know.
        let page_subgroups = cfg!(target_arch = "wasm32") && options.page_subgroups;
        Self::around(device, queue, info, &adapter.get_info(), options.deny, page_subgroups)
    }

    /// Around a device that the caller made.
    fn around(
        device: wgpu::Device,
        queue: wgpu::Queue,
        info: AdapterInfo,
        raw: &wgpu::AdapterInfo,
        deny: Deny,
        page_subgroups: bool,
    ) -> Result<Gpu> {
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
        let caps = Caps::new(&device, raw, deny, page_subgroups);
        let (buffers, pipelines, readbacks) = (vec![], HashMap::new(), vec![]);
        Ok(Gpu { device, queue, caps, info, faults, lost, buffers, pipelines, readbacks, made: 0 })
    }

    /// What kernels may rely on.
    pub fn caps(&self) -> &Caps {
        &self.caps
    }

    /// The adapter in use.
    pub fn info(&self) -> &AdapterInfo {
        &self.info
    }

    /// Buffers and pipelines made so far: replaying a plan makes none.
    pub fn made(&self) -> usize {
        self.made + self.pipelines.len()
    }

    /// Whether the device was lost or does not answer. Any other fault is the fault of one operator, and another device
    /// on the same adapter may be of use.
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

    /// Compiles a kernel.
    fn compile(&self, kernel: &Kernel, consts: &[Const]) -> (wgpu::ComputePipeline, wgpu::BindGroupLayout) {
        let entry = |binding, ty| wgpu::BindGroupLayoutEntry {
            binding,
            visibility: wgpu::ShaderStages::COMPUTE,
            ty: wgpu::BindingType::Buffer { ty, has_dynamic_offset: false, min_binding_size: None },
            count: None,
        };
        let mut entries = vec![entry(0, wgpu::BufferBindingType::Uniform)];
        entries.extend(kernel.binds.iter().zip(1..).map(|(bind, at)| {
            let read_only = bind.access == Access::Read;
            entry(at, wgpu::BufferBindingType::Storage { read_only })
        }));
        let (device, label) = (&self.device, Some(kernel.name));
        let group = device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label, entries: &entries });
        let layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label,
            bind_group_layouts: &[Some(&group)],
            ..Default::default()
        });
        let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
            label,
            source: wgpu::ShaderSource::Wgsl(kernel.source(consts, &self.caps).into()),
        });
        let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label,
            layout: Some(&layout),
            module: &module,
            entry_point: Some(kernel.name),
            compilation_options: Default::default(),
            cache: None,
        });
        (pipeline, group)
    }

    /// Asks the driver for kernels and keeps none of them. In a page, where a browser keeps what it has compiled as
    /// long as somebody holds it, the caller can have them compiled beside everything else.
    pub fn announce(&self, kernels: &[(Kernel, Vec<Const>)]) {
        for (kernel, consts) in kernels {
            self.compile(kernel, consts);
        }
    }

    fn pipeline(&mut self, step: &Step) -> (wgpu::ComputePipeline, wgpu::BindGroupLayout) {
        let kernel = step.op.kernel();
        let key = (kernel.name, step.op.consts(&self.caps));
        if let Some(made) = self.pipelines.get(&key) {
            return made.clone();
        }
        let made = self.compile(&kernel, &key.1);
        self.pipelines.insert(key, made.clone());
        made
    }

    pub(crate) async fn prepare(&mut self, plan: &mut Plan) -> Result<()> {
        const SLOT: u64 = 256;
        let mut numbers = vec![0u8; plan.steps.len() * SLOT as usize];
        for (step, slot) in plan.steps.iter().zip(numbers.chunks_mut(SLOT as usize)) {
            let bytes = step.op.numbers();
            slot[..bytes.len()].copy_from_slice(bytes);
        }
        let usage = wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST;
        let uniform = self.new_buffer("numbers", numbers.len().max(SLOT as usize) as u64, usage).await?;
        self.queue.write_buffer(&uniform, 0, &numbers);
        let mut steps = Vec::with_capacity(plan.steps.len());
        for (i, step) in plan.steps.iter().enumerate() {
            let (pipeline, layout) = self.pipeline(step);
            let mut entries = vec![wgpu::BindGroupEntry {
                binding: 0,
                resource: wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                    buffer: &uniform,
                    offset: i as u64 * SLOT,
                    size: std::num::NonZeroU64::new(step.op.numbers().len() as u64),
                }),
            }];
            entries.extend(step.bufs.iter().zip(1..).map(|(buf, binding)| wgpu::BindGroupEntry {
                binding,
                resource: self.buffer(*buf).as_entire_binding(),
            }));
            let group = self.device.create_bind_group(&wgpu::BindGroupDescriptor {
                label: Some(step.op.kernel().name),
                layout: &layout,
                entries: &entries,
            });
            steps.push((pipeline, group));
        }
        plan.prepared = Some(Prepared { steps });
        self.faults.check()
    }

    pub(crate) fn submit(&mut self, plans: &[(&Plan, Size)], read: Option<(Buf, u64)>) -> Result<Pending> {
        self.faults.check()?;
        let mut encoder = self.device.create_command_encoder(&Default::default());
        if !plans.is_empty() {
            let mut pass = encoder.begin_compute_pass(&Default::default());
            for (plan, size) in plans {
                let prepared = plan.prepared.as_ref().expect("a plan is prepared before it runs");
                for (step, (pipeline, group)) in plan.steps.iter().zip(&prepared.steps) {
                    let [x, y, z] = step.op.grid(*size, &self.caps);
                    pass.set_pipeline(pipeline);
                    pass.set_bind_group(0, group, &[]);
                    pass.dispatch_workgroups(x, y, z);
                }
            }
        }
        let read = read.map(|(buf, words)| {
            let target = self.readback(words * 4);
            encoder.copy_buffer_to_buffer(self.buffer(buf), 0, &target, 0, words * 4);
            (target, words * 4)
        });
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
        Ok(Pending { index, done, read })
    }

    /// An idle buffer to read `bytes` through; a few exist per size, and they are used in turn.
    fn readback(&mut self, bytes: u64) -> wgpu::Buffer {
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

    pub(crate) async fn collect(&mut self, pending: Pending) -> Result<Vec<u32>> {
        // On the web this returns at once and the browser wakes the future below.
        let wait = wgpu::PollType::Wait { submission_index: Some(pending.index), timeout: Some(HUNG) };
        // What went wrong first says more than what it led to.
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
        // Results of a step are small and come every token; large reads are rare and not kept.
        if bytes <= 1 << 16 && self.readbacks.len() < 16 {
            self.readbacks.push(buffer);
        }
        self.faults.check().map(|()| words)
    }
}
