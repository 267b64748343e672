//! Compiles kernels into pipelines, and prepares plans for replay.

use super::Gpu;
use crate::Result;
use crate::kernel::{Access, Const, Kernel};
use crate::plan::{Plan, Step};

/// What a GPU needs to replay a plan.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(super) steps: Vec<(wgpu::ComputePipeline, wgpu::BindGroup)>,
}

impl Gpu {
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
        let text = kernel.source(consts, &self.caps);
        let text = if let Some(rewrite) = self.rewrite { rewrite(text) } else { text };
        let source = wgpu::ShaderSource::Wgsl(text.into());
        let module = device.create_shader_module(wgpu::ShaderModuleDescriptor { label, source });
        // No kernel reads workgroup memory that it has not written; tests fill it with NaN first. Clearing it would be
        // most of what SwiftShader compiles. A browser clears it in any case.
        let compilation_options =
            wgpu::PipelineCompilationOptions { zero_initialize_workgroup_memory: false, ..Default::default() };
        let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label,
            layout: Some(&layout),
            module: &module,
            entry_point: Some(kernel.name),
            compilation_options,
            cache: None,
        });
        (pipeline, group)
    }

    /// Compiles kernels without keeping them. A browser keeps a compiled kernel as long as the page holds it, so a page
    /// can have kernels compiled while it loads weights.
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
            let words = step.op.numbers();
            slot[..words.len() * 4].copy_from_slice(bytemuck::cast_slice(&words));
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
                    size: std::num::NonZeroU64::new(step.op.fields().len() as u64 * 4),
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
}
