//! A model that is being loaded.

use crate::device::Device;
use crate::session::Session;
use crate::text::Text;
use crate::{coded, fail, options};
use nemoflash::{Caps, Chat, Engine, EngineOptions, Exec, Kv, LoadOptions, Loader, Quant, Scan, defaults};
use serde::Deserialize;
use wasm_bindgen::prelude::*;

/// Rows of one prefill step on the CPU. They bound the time until a "stop" is heard.
const CPU_ROWS: u32 = 32;

#[derive(Deserialize)]
struct Options {
    /// `bf16`, `q8` or `q4`.
    weights: String,
    /// Longest text in tokens. None means what the model allows, up to 4096.
    context: Option<u32>,
    /// Number of sequences at a time.
    slots: u32,
    kv_f32: bool,
    scan: Option<String>,
}

/// A loader and its device.
#[wasm_bindgen]
pub struct Loading {
    loader: Loader,
    options: Options,
    /// The scan of prompts; `None` lets the engine choose.
    scan: Option<Scan>,
    /// Whether the model runs on the CPU.
    cpu: bool,
}

#[wasm_bindgen]
impl Loading {
    /// Begins to load a model from its `config.json`, the length of each weight file, and options as JSON: `{weights, context,
    /// slots, kv_f32, scan}`.
    #[wasm_bindgen(constructor)]
    pub fn new(device: Device, config_json: &[u8], lengths: Vec<f64>, options_json: &str) -> Result<Loading, JsValue> {
        let (options, cpu): (Options, _) = (options(options_json)?, device.is_cpu());
        let bits = match options.weights.as_str() {
            "bf16" => None,
            "q8" => Some(8),
            "q4" => Some(4),
            other => return Err(coded("parameter", &format!("`weights`: `{other}` is not one of bf16, q8, q4"))),
        };
        let scan = match options.scan.as_deref() {
            None => None,
            Some("serial") => Some(Scan::Serial),
            Some("chunked") => Some(Scan::Chunked),
            Some(other) => return Err(coded("parameter", &format!("`scan`: `{other}` is not one of serial, chunked"))),
        };
        let quantise = bits.map(|bits| Quant::new(bits, defaults::GROUP_SIZE));
        let load = LoadOptions { quantise, ..Default::default() };
        let lengths: Vec<Option<u64>> = lengths.into_iter().map(|length| Some(length as u64)).collect();
        let loader = Loader::with_options(device.exec, config_json, &lengths, load).map_err(fail)?;
        Ok(Loading { loader, options, scan, cpu })
    }

    /// File and offset of the bytes that are needed next. None when all bytes are there.
    pub fn wants(&self) -> Option<Vec<f64>> {
        self.loader.wants().map(|want| vec![want.file as f64, want.offset as f64])
    }

    /// Takes the bytes that it needs from a piece of a file that begins at `start`. Returns the bytes of tensors that are
    /// loaded, and the bytes of all tensors (0 while headers are missing).
    pub async fn push(&mut self, file: usize, start: f64, bytes: Vec<u8>) -> Result<Vec<f64>, JsValue> {
        let (start, mut state) = (start as u64, [0.0, 0.0]);
        while let Some(want) = self.loader.wants().filter(|want| want.file == file) {
            let rest = want.offset.checked_sub(start).and_then(|at| bytes.get(usize::try_from(at).ok()?..));
            let Some(rest) = rest.filter(|rest| !rest.is_empty()) else { break };
            let progress = self.loader.push(rest).await.map_err(fail)?;
            state = [progress.done as f64, progress.total as f64];
        }
        Ok(state.to_vec())
    }

    /// A dry run: the memory that the engine will need, as the JSON of [`Session::explain`]. Before all headers are read, it
    /// follows from `config.json` alone.
    pub async fn dry_run(&self) -> Result<String, JsValue> {
        let dry = self.dry_engine().await?;
        Ok(serde_json::to_string(&dry.explain()).unwrap_or_default())
    }

    /// Asks the browser for every kernel that the first answer needs, in the order of first use, and drops the results. The
    /// package makes the browser compile the kernels in the background, and keeps them.
    pub async fn announce(&self) -> Result<(), JsValue> {
        let dry = self.dry_engine().await?;
        if let (Exec::Gpu(gpu), Exec::Dry(dry)) = (self.loader.exec(), dry.exec()) {
            gpu.announce(dry.kernels());
        }
        Ok(())
    }

    /// The engine, after all bytes were pushed.
    pub async fn finish(self, text: Text) -> Result<Session, JsValue> {
        let options = self.engine()?;
        let loaded = self.loader.finish().await.map_err(fail)?;
        let notes = loaded.notes().to_vec();
        let engine = Engine::new(loaded, options).await.map_err(fail)?;
        Ok(Session { engine, text, chat: Chat::default(), notes })
    }
}

impl Loading {
    fn engine(&self) -> Result<EngineOptions, JsValue> {
        Ok(EngineOptions {
            slots: self.options.slots,
            context: self.loader.config().and_then(|config| config.context(self.options.context)).map_err(fail)?,
            kv: if self.options.kv_f32 { Kv::F32 } else { Kv::F16 },
            scan: self.scan,
            prefill_rows: self.cpu.then_some(CPU_ROWS),
            clock: Some(|| js_sys::Date::now() / 1e3),
        })
    }

    async fn dry_engine(&self) -> Result<Engine, JsValue> {
        let dry = self.loader.dry_run().await.map_err(fail)?;
        Engine::new(dry, self.engine()?).await.map_err(fail)
    }
}

/// A dry run on a device with these limits: the memory that a model would need, as the JSON of [`Session::explain`]. It needs
/// only `config.json` and the options of [`Loading`]. Nothing is loaded.
#[wasm_bindgen]
pub async fn dry_run(
    config_json: &[u8],
    max_binding: f64,
    max_buffer: f64,
    options_json: &str,
) -> Result<String, JsValue> {
    let caps = Caps { max_binding: max_binding as u64, max_buffer: max_buffer as u64, ..Caps::FLOOR };
    let device = Device::dry(&caps);
    Loading::new(device, config_json, vec![0.0], options_json)?.dry_run().await
}

/// The `config.json` of a published shape: `nemotron-flash-1b`, `nemotron-flash-3b`, `qwen3-0.6b`, `qwen3-1.7b`.
#[wasm_bindgen]
pub fn published(name: &str) -> Option<Vec<u8>> {
    nemoflash::ARCHS.iter().find(|(arch, _)| *arch == name).map(|(_, config)| config.as_bytes().to_vec())
}
