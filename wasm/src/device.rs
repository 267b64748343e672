//! The devices on which models and checks run.

use crate::{fail, options};
use js_sys::{Function, Promise};
use nemoflash::{Caps, Cpu, Deny, Exec, Gpu, GpuOptions};
use serde::Deserialize;
use serde_json::json;
use std::cell::RefCell;
use std::pin::Pin;
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;

thread_local! {
    static PAUSE: RefCell<Option<Function>> = const { RefCell::new(None) };
}

/// On the CPU, the promise that `pause` returns is awaited after every step. The CPU twins never wait for anything else, so
/// without it a message that says "stop" would never arrive.
#[wasm_bindgen]
pub fn pause_with(pause: Function) {
    PAUSE.set(Some(pause));
}

fn pause() -> Pin<Box<dyn Future<Output = ()>>> {
    Box::pin(async {
        let promise = PAUSE.with_borrow(|pause| pause.as_ref().and_then(|pause| pause.call0(&JsValue::NULL).ok()));
        if let Some(promise) = promise {
            let _ = JsFuture::from(Promise::from(promise)).await;
        }
    })
}

#[derive(Clone, Copy, Deserialize)]
struct Options {
    cpu: bool,
    /// Whether the adapter is software. Then steps are kept short.
    software: bool,
    deny_f16: bool,
    deny_subgroups: bool,
    /// Whether the package adds `subgroups` when wgpu asks the browser for the device.
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
    /// Opens the browser's GPU, or the CPU. `options_json` is `{cpu, software, deny_f16, deny_subgroups, page_subgroups}`.
    pub async fn open(options_json: String) -> Result<Device, JsValue> {
        Device::with(options(&options_json)?).await
    }

    /// Its name, features and limits, as JSON.
    pub fn describe(&self) -> String {
        describe(&self.exec)
    }
}

impl Device {
    /// A device for dry runs, with these limits and features.
    pub(crate) fn dry(caps: &Caps) -> Device {
        let options =
            Options { cpu: false, software: false, deny_f16: false, deny_subgroups: false, page_subgroups: false };
        Device { exec: Exec::dry(caps), options }
    }

    /// Whether no GPU is used, not even one that is software.
    pub(crate) fn is_cpu(&self) -> bool {
        self.options.cpu
    }

    async fn with(options: Options) -> Result<Device, JsValue> {
        if options.cpu {
            return Ok(Device { exec: Exec::Cpu(Cpu::with_pause(pause)), options });
        }
        let deny = Deny { f16: options.deny_f16, subgroups: options.deny_subgroups, coopmat: true };
        let Options { page_subgroups, software, .. } = options;
        let wanted = GpuOptions { deny, page_subgroups, software, ..Default::default() };
        let gpu = Gpu::new(&wanted).await.map_err(fail)?;
        Ok(Device { exec: Exec::Gpu(Box::new(gpu)), options })
    }

    /// Opens the device again, after an operator has broken this one.
    pub(crate) async fn again(&self) -> Result<Device, JsValue> {
        Device::with(self.options).await
    }
}

/// A device's name, features and limits, as JSON.
pub(crate) fn describe(exec: &Exec) -> String {
    let name = match exec {
        Exec::Gpu(gpu) => gpu.info().name.as_str(),
        Exec::Cpu(_) | Exec::Dry(_) => "cpu",
    };
    json!({ "name": name, "caps": exec.caps() }).to_string()
}
