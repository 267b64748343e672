//! An engine with its text: prompts in, pieces of an answer out.

use crate::device::describe;
use crate::text::{Text, USER_AGAIN};
use crate::{fail, options};
use js_sys::{Function, Promise};
use nemoflash::{Engine, Event, Exec, Piece, Sampling, StopMatcher, TextStream};
use serde::Deserialize;
use std::ops::ControlFlow;
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;

/// One model on one device.
#[wasm_bindgen]
pub struct Session {
    pub(crate) engine: Engine,
    pub(crate) text: Text,
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

    /// Answers a conversation (JSON: a list of `{role, content}`). `on_event` is called with ("prefill", done, total)
    /// and ("token", id, text) and returns whether to stop. `pause` returns a promise; it is awaited between the tokens
    /// of a device that would not let anything else run. Returns what ended the answer.
    pub async fn generate(
        &mut self,
        messages_json: String,
        options_json: String,
        on_event: Function,
        pause: Function,
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
        let mut stops = wanted.stop;
        if wanted.format == "instruct" {
            stops.push(USER_AGAIN.into());
        }
        let mut writer = Writer {
            stream: self.text.tokenizer.stream(true),
            matcher: StopMatcher::new(stops).map_err(fail)?,
            eos: [&self.engine.config().eos[..], &self.text.eos].concat(),
            on_event,
            tokens: 0,
            end: None,
            failed: None,
        };
        self.engine.begin(0, &sampling).map_err(fail)?;
        match self.engine.exec() {
            Exec::Gpu(_) => {
                let mut take = |event| writer.take(event);
                self.engine.generate(0, &ids, wanted.max_tokens, &mut take).await.map_err(fail)?;
            }
            Exec::Cpu(_) => self.generate_on_cpu(&ids, wanted.max_tokens, &mut writer, &pause).await?,
        }
        writer.finish(wanted.max_tokens)
    }

    /// Prefill and decode of a number of tokens, for a bench: the ids do not matter. `on_event` is as in
    /// [`Session::generate`], without text.
    pub async fn run(&mut self, prompt: u32, tokens: u32, on_event: Function, pause: Function) -> Result<(), JsValue> {
        let vocab = self.engine.config().vocab_size;
        let ids: Vec<u32> = (1..=prompt.max(1)).map(|i| i * 37 % vocab).collect();
        let (stream, matcher) = (self.text.tokenizer.stream(true), StopMatcher::new(vec![]).map_err(fail)?);
        let mut writer = Writer { stream, matcher, eos: vec![], on_event, tokens: 0, end: None, failed: None };
        self.engine.begin(0, &Sampling::default()).map_err(fail)?;
        match self.engine.exec() {
            Exec::Gpu(_) => {
                let mut take = |event| writer.take(event);
                self.engine.generate(0, &ids, tokens, &mut take).await.map_err(fail)?;
            }
            Exec::Cpu(_) => self.generate_on_cpu(&ids, tokens, &mut writer, &pause).await?,
        }
        writer.finish(tokens).map(|_| ())
    }
}

impl Session {
    /// The CPU twins never wait for anything, so a message that says "stop" would never arrive: pause after each token.
    async fn generate_on_cpu(
        &mut self,
        ids: &[u32],
        max_tokens: u32,
        writer: &mut Writer,
        pause: &Function,
    ) -> Result<(), JsValue> {
        const ROWS: usize = 32;
        let mut next = None;
        for (i, tokens) in ids.chunks(ROWS).enumerate() {
            let done = i * ROWS + tokens.len();
            let piece = Piece { slot: 0, tokens, pick: done == ids.len() && max_tokens > 0 };
            next = self.engine.step(&[piece]).await.map_err(fail)?[0];
            JsFuture::from(Promise::from(pause.call0(&JsValue::NULL)?)).await?;
            if writer.take(Event::Prefill { done, total: ids.len() }).is_break() {
                return Ok(());
            }
        }
        while let Some(token) = next {
            let full = self.engine.position(0).map_err(fail)? >= self.engine.context();
            if writer.take(Event::Token(token)).is_break() || writer.tokens >= max_tokens || full {
                break;
            }
            JsFuture::from(Promise::from(pause.call0(&JsValue::NULL)?)).await?;
            next = self.engine.step(&[Piece { slot: 0, tokens: &[token], pick: true }]).await.map_err(fail)?[0];
        }
        Ok(())
    }
}

/// From tokens to text that may be shown.
struct Writer {
    stream: TextStream,
    matcher: StopMatcher,
    eos: Vec<u32>,
    on_event: Function,
    tokens: u32,
    end: Option<&'static str>,
    failed: Option<JsValue>,
}

impl Writer {
    fn tell(&mut self, kind: &str, number: f64, more: &JsValue) {
        match self.on_event.call3(&JsValue::NULL, &kind.into(), &number.into(), more) {
            Ok(stop) if stop.is_truthy() => self.end = self.end.or(Some("aborted")),
            Ok(_) => {}
            Err(thrown) => self.failed = Some(thrown),
        }
    }

    fn take(&mut self, event: Event) -> ControlFlow<()> {
        match event {
            Event::Prefill { done, total } => self.tell("prefill", done as f64, &(total as f64).into()),
            Event::Token(id) if self.eos.contains(&id) => self.end = Some("eos"),
            Event::Token(id) => {
                self.tokens += 1;
                match self.stream.push(id) {
                    Ok(piece) => {
                        let (safe, found) = self.matcher.push(&piece);
                        if found {
                            self.end = Some("stop");
                        }
                        self.tell("token", id.into(), &safe.into());
                    }
                    Err(error) => self.failed = Some(fail(error)),
                }
            }
        }
        let over = self.end.is_some() || self.failed.is_some();
        if over { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    /// What was held back comes out now.
    fn finish(mut self, max_tokens: u32) -> Result<String, JsValue> {
        let full = if self.tokens < max_tokens { "context" } else { "length" };
        let end = self.end.unwrap_or(full);
        let (safe, _) = self.matcher.push(&self.stream.finish());
        let held = safe + &self.matcher.finish();
        if !held.is_empty() && self.failed.is_none() {
            self.tell("held", 0.0, &held.into());
        }
        match self.failed {
            Some(thrown) => Err(thrown),
            None => Ok(end.into()),
        }
    }
}
