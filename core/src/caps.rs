//! What a device offers, minus what the caller denies.

use serde::Serialize;

/// Optional features that the caller does not want to use (`--deny`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Deny {
    /// No f16 arithmetic in shaders.
    pub f16: bool,
    /// No subgroup operations.
    pub subgroups: bool,
    /// No cooperative matrices.
    pub coopmat: bool,
}

impl Deny {
    /// The names of the denied features.
    pub fn names(self) -> Vec<&'static str> {
        let all = [(self.f16, "f16"), (self.subgroups, "subgroups"), (self.coopmat, "coopmat")];
        all.into_iter().filter(|(denied, _)| *denied).map(|(_, name)| name).collect()
    }
}

/// What kernels may rely on.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Caps {
    /// f16 arithmetic in shaders.
    pub f16: bool,
    /// The subgroup size, if subgroup operations exist and every subgroup has the same size.
    pub subgroup: Option<u32>,
    /// Cooperative matrices of 16 × 16 × 16 with f16 products and f32 sums, in subgroups of 32 threads.
    pub coopmat: bool,
    /// Whether the GPU is software that runs on the CPU. Short kernels with few threads are fastest there.
    pub software: bool,
    /// Whether WGSL must say `enable subgroups;` to use subgroup operations. Browsers require it; naga does not know
    /// it.
    #[serde(skip)]
    pub enable_subgroups: bool,
    /// GPU timestamps at pass boundaries.
    pub timestamps: bool,
    /// Largest storage binding in bytes.
    #[serde(rename = "max_binding_bytes")]
    pub max_binding: u64,
    /// Largest buffer in bytes.
    #[serde(rename = "max_buffer_bytes")]
    pub max_buffer: u64,
    /// Storage buffers per kernel.
    pub max_storage_buffers: u32,
    /// Workgroup memory in bytes.
    pub workgroup_bytes: u32,
    /// Invocations of one workgroup.
    pub max_invocations: u32,
    /// Workgroups along one dimension of a dispatch.
    pub max_groups: u32,
}

impl Caps {
    /// The limits that every WebGPU device has, without optional features.
    pub const FLOOR: Caps = Caps {
        f16: false,
        subgroup: None,
        coopmat: false,
        software: false,
        enable_subgroups: false,
        timestamps: false,
        max_binding: 128 << 20,
        max_buffer: 256 << 20,
        max_storage_buffers: 8,
        workgroup_bytes: 16 << 10,
        max_invocations: 256,
        max_groups: 65_535,
    };

    /// The limits of the CPU twins: those that every WebGPU device has, but with buffers of any size.
    pub const CPU: Caps = Caps { max_binding: 1 << 40, max_buffer: 1 << 40, ..Caps::FLOOR };

    /// The capabilities that follow from a device's features and limits.
    pub(crate) fn new(
        device: &wgpu::Device,
        info: &wgpu::AdapterInfo,
        deny: Deny,
        page_subgroups: bool,
        software: bool,
    ) -> Caps {
        let (features, limits) = (device.features(), device.limits());
        let fixed = info.subgroup_min_size == info.subgroup_max_size && info.subgroup_min_size >= 4;
        let offered = features.contains(wgpu::Features::SUBGROUP) || page_subgroups;
        let subgroups = offered && fixed && !deny.subgroups;
        Caps {
            f16: features.contains(wgpu::Features::SHADER_F16) && !deny.f16,
            subgroup: subgroups.then_some(info.subgroup_min_size).filter(|&n| n <= 64),
            // The feature was requested only if the adapter has the kind that kernels use and the caller does not deny
            // it.
            coopmat: features.contains(wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX),
            software,
            enable_subgroups: page_subgroups && subgroups,
            timestamps: features.contains(wgpu::Features::TIMESTAMP_QUERY),
            // Rounded down to 256 bytes, so that a binding never ends inside a vector of a row.
            max_binding: limits.max_storage_buffer_binding_size / 256 * 256,
            max_buffer: limits.max_buffer_size / 256 * 256,
            max_storage_buffers: limits.max_storage_buffers_per_shader_stage,
            workgroup_bytes: limits.max_compute_workgroup_storage_size,
            max_invocations: limits.max_compute_invocations_per_workgroup,
            max_groups: limits.max_compute_workgroups_per_dimension,
        }
    }

    /// Whether kernels with cooperative matrices can run that need so many bytes of workgroup memory and subgroups of 32.
    pub fn coop(&self, workgroup_bytes: u32) -> bool {
        self.coopmat && !self.software && self.subgroup == Some(32) && self.workgroup_bytes >= workgroup_bytes
    }

    /// A grid of `n` workgroups. It is folded into two dimensions if one dimension cannot hold them, into as few rows as
    /// possible and of equal length: workgroups beyond `n` have nothing to do, so there are fewer of them than rows. Kernels
    /// compute the index of their workgroup with `group_index` of `shaders/lib/grid.wgsl`.
    pub fn grid(&self, n: u64) -> [u32; 3] {
        let height = n.div_ceil(u64::from(self.max_groups)).max(1);
        [n.div_ceil(height).max(1) as u32, height as u32, 1]
    }
}

#[cfg(test)]
mod tests {
    use super::Caps;

    /// 73,728 workgroups were once folded into two rows of 65,535, and 57,342 of them had nothing to do.
    #[test]
    fn grids_have_few_workgroups_too_many() {
        let caps = Caps::FLOOR;
        assert_eq!(caps.grid(73_728), [36_864, 2, 1]);
        for n in [0, 1, 65_534, 65_535, 65_536, 131_070, 131_071, 1 << 24] {
            let [width, height, depth] = caps.grid(n).map(u64::from);
            let surplus = width * height - n;
            assert!(surplus < height.max(2) && depth == 1, "{n}: {width} x {height}");
            assert!(width.max(height) <= caps.max_groups.into(), "{n}: {width} x {height}");
        }
    }
}
