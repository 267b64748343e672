//! An engine with its text: prompts in, pieces of an answer out.

use crate::device::describe;
use crate::text::Text;
use crate::{fail, options};
use js_sys::Function;
use nemoflash::{End, Engine, Event, Sampling, Transcript, USER_AGAIN, Until, Writer};
use serde::Deserialize;
use std::ops::ControlFlow;
use wasm_bindgen::prelude::*;

/// One model on one device.
#[wasm_bindgen]
pub struct Session {
    pub(crate) engine: Engine,
    pub(crate) text: Text,
    /// What was read for the last answer.
    pub(crate) transcript: Transcript,
}

#[derive(Deserialize)]
struct Options {
    max_tokens: u32,
    temperature: f32,
    top_k: u32,
    top_p: f32,
    min_p: f32,
    repetition_penalty: f32,
    /// As text: JSON's numbers end at 2^53.
    seed: String,
    stop: Vec<String>,
    format: String,
}

#[wasm_bindgen]
impl Session {
    /// Memory, dispatches and kernels: what `nemoflash explain --json` prints.
    pub fn explain(&self) -> String {
        serde_json::to_string(&self.engine.explain()).unwrap_or_default()
    }

    /// The device, as [`crate::device::Device::describe`].
    pub fn describe(&self) -> String {
        describe(self.engine.exec())
    }

    /// Whether the model has a chat template.
    pub fn has_template(&self) -> bool {
        self.text.has_template()
    }

    /// Answers a conversation (JSON: a list of `{role, content}`); what it has in common with the last one is not read
    /// again. `on_event` is called with ("prefill", done, total) and ("token", id, text) and returns whether to stop.
    /// Returns what ended the answer.
    pub async fn generate(
        &mut self,
        messages_json: String,
        options_json: String,
        on_event: Function,
    ) -> Result<String, JsValue> {
        let wanted: Options = options(&options_json)?;
        let ids = self.text.ids(&messages_json, &wanted.format)?;
        let sampling = Sampling {
            temperature: wanted.temperature,
            top_k: wanted.top_k,
            top_p: wanted.top_p,
            min_p: wanted.min_p,
            repetition_penalty: wanted.repetition_penalty,
            seed: wanted.seed.parse().unwrap_or(0),
        };
        let mut until = Until {
            max_tokens: wanted.max_tokens,
            eos: [&self.engine.config().eos[..], &self.text.eos].concat(),
            stops: wanted.stop,
        };
        if wanted.format == "instruct" {
            until.stops.push(USER_AGAIN.into());
        }
        let mut transcript = std::mem::take(&mut self.transcript);
        let answer = self.answer(&mut transcript, &sampling, &ids, until, on_event).await;
        self.transcript = transcript;
        answer
    }
}

impl Session {
    async fn answer(
        &mut self,
        transcript: &mut Transcript,
        sampling: &Sampling,
        ids: &[u32],
        until: Until,
        on_event: Function,
    ) -> Result<String, JsValue> {
        let most = until.max_tokens;
        let mut writer = Writer::new(&self.text.tokenizer, until).map_err(fail)?;
        let mut failed = None;
        let tell = |kind: &str, number: f64, more: JsValue| {
            on_event.call3(&JsValue::NULL, &kind.into(), &number.into(), &more).map(|stop| stop.is_truthy())
        };
        let mut take = |event| {
            let told = match event {
                Event::Prefill { done, total } => tell("prefill", done as f64, (total as f64).into()),
                Event::Token(id) => match writer.push(id) {
                    Ok(_) if writer.end() == Some(End::Eos) => Ok(false),
                    Ok(text) => tell("token", id.into(), text.into()),
                    Err(error) => Err(fail(error)),
                },
            };
            match told {
                Ok(true) => writer.interrupt(),
                Ok(false) => {}
                Err(thrown) => failed = Some(thrown),
            }
            if writer.end().is_some() || failed.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        self.engine.answer(0, transcript, sampling, ids, most, &mut take).await.map_err(fail)?;
        if let Some(thrown) = failed {
            return Err(thrown);
        }
        let (held, read, end) = writer.finish();
        if !held.is_empty() {
            tell("held", 0.0, held.into())?;
        }
        transcript.set_read([ids, &read].concat());
        Ok(match end {
            End::Eos => "eos",
            End::Stop => "stop",
            End::Length => "length",
            End::Context => "context",
            End::Interrupted => "aborted",
        }
        .into())
    }
}
