//! A model while its bytes come in.

use crate::device::Device;
use crate::session::Session;
use crate::text::Text;
use crate::{coded, fail};
use nemoflash::{Engine, EngineOptions, Exec, Kv, LoadOptions, Loader, Quant};
use wasm_bindgen::prelude::*;

/// Context in tokens where the model allows it and nobody asks for another.
const CONTEXT: u32 = 4096;
/// Rows of one prefill step where the GPU is software: bounds the time of a submission.
const SOFTWARE_ROWS: u32 = 64;

/// A loader and its device.
#[wasm_bindgen]
pub struct Loading {
    loader: Loader,
    exec: Exec,
}

#[wasm_bindgen]
impl Loading {
    /// Begins with `config.json`, the length of each file, and `bf16`, `q8` or `q4`.
    #[wasm_bindgen(constructor)]
    pub fn new(device: Device, config_json: &[u8], lengths: Vec<f64>, weights: &str) -> Result<Loading, JsValue> {
        let bits = match weights {
            "bf16" => None,
            "q8" => Some(8),
            "q4" => Some(4),
            other => return Err(coded("parameter", &format!("`weights`: `{other}` is not one of bf16, q8, q4"))),
        };
        let options = LoadOptions {
            quantise: bits.map(|bits| Quant { bits, group: 64, scale_f16: false }),
            ..Default::default()
        };
        let lengths: Vec<Option<u64>> = lengths.into_iter().map(|length| Some(length as u64)).collect();
        let loader = Loader::with_options(config_json, &lengths, options).map_err(fail)?;
        Ok(Loading { loader, exec: device.exec })
    }

    /// File and offset of the bytes that come next; nothing once all are there.
    pub fn wants(&self) -> Option<Vec<f64>> {
        self.loader.wants().map(|want| vec![want.file as f64, want.offset as f64])
    }

    /// Takes what it wants of a piece of a file that begins at `start`. Returns bytes of tensors that are done, and
    /// of all tensors.
    pub async fn push(&mut self, file: usize, start: f64, bytes: Vec<u8>) -> Result<Vec<f64>, JsValue> {
        let (start, mut state) = (start as u64, [0.0, 0.0]);
        while let Some(want) = self.loader.wants().filter(|want| want.file == file) {
            let rest = want.offset.checked_sub(start).and_then(|at| bytes.get(usize::try_from(at).ok()?..));
            let Some(rest) = rest.filter(|rest| !rest.is_empty()) else { break };
            let progress = self.loader.push(&mut self.exec, rest).await.map_err(fail)?;
            state = [progress.done as f64, progress.total as f64];
        }
        Ok(state.to_vec())
    }

    /// The engine, once everything has come. A `context` of 0 is what the model allows, up to 4096 tokens.
    pub async fn finish(mut self, text: Text, context: u32, kv_f32: bool) -> Result<Session, JsValue> {
        let model = self.loader.finish(&mut self.exec).await.map_err(fail)?;
        let most = model.config.max_position_embeddings.saturating_sub(model.config.memory_tokens).max(1);
        let context = if context == 0 { CONTEXT.min(most) } else { context };
        if context > most {
            let why = format!("`context`: {context} is more than the {most} tokens that this model is made for");
            return Err(coded("parameter", &why));
        }
        let software = matches!(&self.exec, Exec::Gpu(gpu) if gpu.info().kind == "cpu");
        let mut options = EngineOptions { context, kv: if kv_f32 { Kv::F32 } else { Kv::F16 }, ..Default::default() };
        if software {
            options.prefill_rows = SOFTWARE_ROWS;
        }
        let engine = Engine::new(self.exec, model, options).await.map_err(fail)?;
        Ok(Session { engine, text })
    }
}
