//! The adapters (GPUs) of a machine.

use super::Gpu;
use crate::{Error, Result};

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
    /// Cooperative matrices of the kind that kernels use.
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
            coopmat: features.contains(wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX)
                && features.contains(wgpu::Features::SHADER_F16)
                && (info.subgroup_min_size, info.subgroup_max_size) == (32, 32)
                && limits.max_compute_workgroup_storage_size >= super::COOPMAT_WORKGROUP_BYTES
                && adapter.cooperative_matrix_properties().iter().any(usable),
            timestamps: features.contains(wgpu::Features::TIMESTAMP_QUERY),
            max_binding: limits.max_storage_buffer_binding_size,
            max_buffer: limits.max_buffer_size,
        }
    }

    /// Rank for sorting: hardware before software, fast kinds before slow ones.
    fn rank(&self) -> usize {
        let kinds = ["discrete", "integrated", "other", "virtual", "cpu"];
        kinds.iter().position(|kind| *kind == self.kind).unwrap_or(kinds.len())
    }
}

/// Whether the adapter has the matrices that kernels use: 16 × 16 × 16, f16 products, f32 sums.
fn usable(kind: &wgpu::CooperativeMatrixProperties) -> bool {
    let types = (kind.ab_type, kind.cr_type);
    (kind.m_size, kind.n_size, kind.k_size) == (16, 16, 16)
        && types == (wgpu::CooperativeScalarType::F16, wgpu::CooperativeScalarType::F32)
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
            return Err(Error::Parameter { name: "backend", why });
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

    pub(super) async fn enumerate(backend: Option<&str>) -> Result<Vec<(AdapterInfo, wgpu::Adapter)>> {
        let (instance, backends) = instance(backend)?;
        #[cfg(not(target_arch = "wasm32"))]
        let adapters = instance.enumerate_adapters(backends).await;
        // A web page gets one adapter; it cannot list them.
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
}
