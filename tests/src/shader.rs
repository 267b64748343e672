//! The text of every kernel for every kind of device.

use nemoflash::Caps;
use nemoflash::kernel::Kernel;
use nemoflash::ops::examples;
use std::collections::BTreeMap;

/// A kernel's text for one kind of device, with what the Rust side says about the kernel.
#[derive(Clone, Debug)]
pub struct Shader {
    /// The kernel.
    pub kernel: Kernel,
    /// The kind of device.
    pub device: &'static str,
    /// Its capabilities.
    pub caps: Caps,
    /// The whole text.
    pub text: String,
    /// Name and type of each number.
    pub fields: &'static [(&'static str, &'static str)],
}

/// The kinds of devices: the floor, and the capabilities of a GPU without subgroups of one size, of SwiftShader, of lavapipe,
/// of a Vulkan GPU, and of one with cooperative matrices. The kind with the least capabilities comes first. If several kinds
/// share a text, it is checked against the first of them.
pub fn kinds() -> [(&'static str, Caps); 7] {
    let with = |f16, subgroup| Caps { f16, subgroup, ..Caps::FLOOR };
    [
        ("floor", Caps::FLOOR),
        ("software", Caps { software: true, ..Caps::FLOOR }),
        ("f16", with(true, None)),
        ("subgroup4", Caps { software: true, ..with(false, Some(4)) }),
        ("f16-subgroup8", Caps { software: true, ..with(true, Some(8)) }),
        ("f16-subgroup32", with(true, Some(32))),
        ("coopmat", Caps { coopmat: true, workgroup_bytes: 48 << 10, ..with(true, Some(32)) }),
    ]
}

/// Every distinct text of every operator's examples, in the order of names.
pub fn shaders() -> Vec<Shader> {
    let mut all = BTreeMap::new();
    for case in examples() {
        for (device, caps) in kinds().into_iter().filter(|(_, caps)| case.runs_on(caps)) {
            let (kernel, op) = (case.op.kernel(), &case.op);
            let text = kernel.source(&op.consts(&caps), &caps);
            all.entry((kernel.name, text.clone())).or_insert_with(|| Shader {
                kernel,
                device,
                caps,
                text,
                fields: op.fields(),
            });
        }
    }
    all.into_values().collect()
}

impl Shader {
    /// Whether it uses cooperative matrices, which only Vulkan has in the shape that the kernels use.
    pub fn coopmat(&self) -> bool {
        self.text.contains("enable wgpu_cooperative_matrix;")
    }

    /// The text for a browser, where every extension must be enabled by name.
    pub fn browser_text(&self) -> String {
        match self.text.contains("subgroup") {
            true => format!("enable subgroups;\n{}", self.text),
            false => self.text.clone(),
        }
    }
}
