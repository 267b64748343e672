//! An engine with its text: prompts in, pieces of an answer out.

use crate::device::describe;
use crate::text::{Text, messages};
use crate::{fail, options};
use js_sys::{Date, Function};
use nemoflash::{Chat, ChatEvent, ChatFormat, ChatOptions, End, Engine, LocalTime, Sampling, TemplateOptions};
use serde::Deserialize;
use std::ops::ControlFlow;
use wasm_bindgen::prelude::*;

/// One model on one device.
#[wasm_bindgen]
pub struct Session {
    pub(crate) engine: Engine,
    pub(crate) text: Text,
    /// The last conversation.
    pub(crate) chat: Chat,
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
    format: ChatFormat,
    thinking: Option<bool>,
}

/// The date and time here, which chat templates may ask for.
fn local_time() -> Option<LocalTime> {
    let now = Date::new_0();
    let (year, month, day) = (now.get_full_year(), now.get_month() + 1, now.get_date());
    LocalTime::new(year, month, day, now.get_hours(), now.get_minutes(), now.get_seconds()).ok()
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
        matches!(self.text.0.template(), Ok(Some(_)))
    }

    /// Answers a conversation (JSON: a list of `{role, content}`); what it has in common with the last one is not read
    /// again. `on_event` is called with ("prefill", done, total), ("token", id, text) and at the end, if text was held back,
    /// ("held", 0, text), and returns whether to stop. Returns what ended the answer.
    pub async fn generate(
        &mut self,
        messages_json: String,
        options_json: String,
        on_event: Function,
    ) -> Result<String, JsValue> {
        let wanted: Options = options(&options_json)?;
        let chosen = ChatOptions {
            format: Some(wanted.format),
            template: TemplateOptions { thinking: wanted.thinking, now: local_time() },
            sampling: Sampling {
                temperature: wanted.temperature,
                top_k: wanted.top_k,
                top_p: wanted.top_p,
                min_p: wanted.min_p,
                repetition_penalty: wanted.repetition_penalty,
                seed: wanted.seed.parse().unwrap_or(0),
            },
            max_tokens: wanted.max_tokens,
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
