//! An engine with the text side of its model. It takes prompts and gives pieces of an answer.

use crate::device::describe;
use crate::text::{Text, messages};
use crate::{fail, options};
use js_sys::{Date, Function};
use nemoflash::{Chat, ChatEvent, ChatFormat, ChatOptions, End, Engine, LocalTime, TemplateOptions, defaults};
use serde::{Deserialize, Serialize};
use std::ops::ControlFlow;
use wasm_bindgen::prelude::*;

/// One model on one device.
#[wasm_bindgen]
pub struct Session {
    pub(crate) engine: Engine,
    pub(crate) text: Text,
    /// The last conversation.
    pub(crate) chat: Chat,
    /// Notes about the checkpoint for the user.
    pub(crate) notes: Vec<String>,
}

#[derive(Deserialize)]
struct Options {
    max_tokens: Option<u32>,
    temperature: Option<f32>,
    top_k: Option<u32>,
    top_p: Option<f32>,
    min_p: Option<f32>,
    repetition_penalty: Option<f32>,
    /// The seed as text, because JavaScript's numbers are exact only up to 2^53.
    seed: String,
    stop: Vec<String>,
    format: Option<ChatFormat>,
    thinking: Option<bool>,
}

/// The defaults of `generate`, with the names that they have in JavaScript.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Defaults {
    temperature: f32,
    top_k: u32,
    top_p: f32,
    min_p: f32,
    repetition_penalty: f32,
    max_tokens: u32,
    format: ChatFormat,
}

/// The local date and time, which chat templates may ask for.
fn local_time() -> Option<LocalTime> {
    let now = Date::new_0();
    let (year, month, day) = (now.get_full_year(), now.get_month() + 1, now.get_date());
    LocalTime::new(year, month, day, now.get_hours(), now.get_minutes(), now.get_seconds()).ok()
}

#[wasm_bindgen]
impl Session {
    /// Memory, dispatches and kernels: the JSON of `nemoflash explain --json`.
    pub fn explain(&self) -> String {
        serde_json::to_string(&self.engine.explain()).unwrap_or_default()
    }

    /// The device, as [`crate::device::Device::describe`].
    pub fn describe(&self) -> String {
        describe(self.engine.exec())
    }

    /// Notes about the checkpoint, a sentence each: tensors that are not used, a head that differs from a tied embedding.
    pub fn notes(&self) -> Vec<String> {
        self.notes.clone()
    }

    /// Whether the model has a chat template.
    pub fn has_template(&self) -> bool {
        matches!(self.text.0.template(), Ok(Some(_)))
    }

    /// The defaults of `generate`, as JSON: the sampling, the longest answer, and the format of a conversation.
    pub fn defaults(&self) -> Result<String, JsValue> {
        let format = self.text.0.format(&ChatOptions::default()).map_err(fail)?;
        let usual = self.text.0.usual();
        let defaults = Defaults {
            temperature: usual.temperature,
            top_k: usual.top_k,
            top_p: usual.top_p,
            min_p: usual.min_p,
            repetition_penalty: usual.repetition_penalty,
            max_tokens: defaults::MAX_TOKENS,
            format,
        };
        Ok(serde_json::to_string(&defaults).unwrap_or_default())
    }

    /// Answers a conversation (JSON: a list of `{role, content}`). Its beginning is not read again if the last conversation had
    /// the same. `on_event` is called with ("prefill", done, total), with ("token", id, text), and at the end with ("held", 0,
    /// text) if text was held back. It returns whether to stop. The result says what ended the answer.
    pub async fn generate(
        &mut self,
        messages_json: String,
        options_json: String,
        on_event: Function,
    ) -> Result<String, JsValue> {
        let wanted: Options = options(&options_json)?;
        let chosen = ChatOptions {
            format: wanted.format,
            template: TemplateOptions { thinking: wanted.thinking, now: local_time() },
            max_tokens: wanted.max_tokens.unwrap_or(defaults::MAX_TOKENS),
            temperature: wanted.temperature,
            top_k: wanted.top_k,
            top_p: wanted.top_p,
            min_p: wanted.min_p,
            repetition_penalty: wanted.repetition_penalty,
            seed: wanted.seed.parse().unwrap_or(0),
            stop: wanted.stop,
        };
        let mut thrown = None;
        let mut on_event = |event| {
            let (kind, number, more): (&str, f64, JsValue) = match event {
                ChatEvent::Prefill { done, total } => ("prefill", done as f64, (total as f64).into()),
                ChatEvent::Token { id, text } => ("token", id.into(), text.into()),
                ChatEvent::Rest(text) => ("held", 0.0, text.into()),
            };
            match on_event.call3(&JsValue::NULL, &kind.into(), &number.into(), &more) {
                Ok(stop) if !stop.is_truthy() => ControlFlow::Continue(()),
                Ok(_) => ControlFlow::Break(()),
                Err(error) => {
                    thrown = Some(error);
                    ControlFlow::Break(())
                }
            }
        };
        let messages = messages(&messages_json)?;
        let answer = self.chat.answer(&mut self.engine, &self.text.0, messages, &chosen, &mut on_event).await;
        if let Some(error) = thrown {
            return Err(error);
        }
        Ok(match answer.map_err(fail)?.end {
            End::Eos => "eos",
            End::Stop => "stop",
            End::Length => "length",
            End::Context => "context",
            End::Interrupted => "aborted",
        }
        .into())
    }
}
