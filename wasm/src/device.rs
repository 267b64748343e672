//! Where things run.

use crate::{fail, options};
use nemoflash::{Deny, Exec, Gpu, GpuOptions};
use serde::Deserialize;
use serde_json::json;
use wasm_bindgen::prelude::*;

#[derive(Clone, Copy, Deserialize)]
struct Options {
    cpu: bool,
    deny_f16: bool,
    deny_subgroups: bool,
    /// The package asks the browser for `subgroups` when wgpu asks for the device.
    page_subgroups: bool,
}

/// A GPU, or the CPU.
#[wasm_bindgen]
pub struct Device {
    pub(crate) exec: Exec,
    options: Options,
}

#[wasm_bindgen]
impl Device {
    /// Opens the page's GPU, or takes the CPU. `options` is JSON: `{cpu, deny_f16, deny_subgroups, page_subgroups}`.
    pub async fn open(options_json: String) -> Result<Device, JsValue> {
        Device::with(options(&options_json)?).await
    }

    /// Its name, and what kernels may rely on, as JSON.
    pub fn describe(&self) -> String {
        describe(&self.exec)
    }
}

impl Device {
    async fn with(options: Options) -> Result<Device, JsValue> {
        if options.cpu {
            return Ok(Device { exec: Exec::cpu(), options });
        }
        let deny = Deny { f16: options.deny_f16, subgroups: options.deny_subgroups, coopmat: true };
        let wanted = GpuOptions { deny, page_subgroups: options.page_subgroups, ..Default::default() };
        let gpu = Gpu::new(&wanted).await.map_err(fail)?;
        Ok(Device { exec: Exec::Gpu(Box::new(gpu)), options })
    }

    /// The same once more, after an operator has spoilt this one.
    pub(crate) async fn again(&self) -> Result<Device, JsValue> {
        Device::with(self.options).await
    }
}

/// A device's name, and what kernels may rely on.
pub(crate) fn describe(exec: &Exec) -> String {
    let (name, software) = match exec {
        Exec::Gpu(gpu) => (gpu.info().name.as_str(), gpu.info().kind == "cpu"),
        Exec::Cpu(_) => ("cpu", true),
    };
    json!({ "name": name, "software": software, "caps": exec.caps() }).to_string()
}
