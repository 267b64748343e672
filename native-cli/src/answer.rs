//! One answer: ids in, text out as it comes, with its times.

use crate::interrupt::Answering;
use crate::terminal;
use anyhow::Result;
use indicatif::ProgressBar;
use nemoflash::{Engine, Event, StopMatcher, TextStream, Tokenizer};
use serde::Serialize;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

/// What ended an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum End {
    /// The model's own end of the text.
    Eos,
    /// A stop text.
    Stop,
    /// `--max-tokens`.
    Length,
    /// The context is full.
    Context,
    /// Ctrl-C.
    Interrupted,
}

impl End {
    /// For the speed line.
    fn words(self) -> &'static str {
        match self {
            End::Eos => "the text ended",
            End::Stop => "a stop text came",
            End::Length => "--max-tokens reached",
            End::Context => "the context is full",
            End::Interrupted => "interrupted",
        }
    }
}

/// An answer and how long it took.
#[derive(Debug)]
pub struct Answer {
    /// What was shown.
    pub text: String,
    /// The tokens, without the one that ended the text.
    pub ids: Vec<u32>,
    /// Why it ended.
    pub end: End,
    /// Tokens of the prompt.
    pub prompt: usize,
    /// From the prompt to the first token.
    pub first: Duration,
    /// From the first token to the last.
    pub rest: Duration,
}

/// The times of a run, for `--json`.
#[derive(Debug, Serialize)]
pub struct Timings {
    load_seconds: f64,
    prefill_seconds: f64,
    prefill_tokens: usize,
    prefill_tokens_per_second: Option<f64>,
    decode_seconds: f64,
    decode_tokens: usize,
    decode_tokens_per_second: Option<f64>,
}

fn rate(tokens: usize, time: Duration) -> Option<f64> {
    (tokens > 0 && !time.is_zero()).then(|| tokens as f64 / time.as_secs_f64())
}

impl Answer {
    /// Times and speeds. Decode is counted from the first token on, which prefill already gives.
    pub fn timings(&self, load: Duration) -> Timings {
        let decoded = self.ids.len().saturating_sub(1);
        Timings {
            load_seconds: load.as_secs_f64(),
            prefill_seconds: self.first.as_secs_f64(),
            prefill_tokens: self.prompt,
            prefill_tokens_per_second: rate(self.prompt, self.first),
            decode_seconds: self.rest.as_secs_f64(),
            decode_tokens: decoded,
            decode_tokens_per_second: rate(decoded, self.rest),
        }
    }

    /// One line for people.
    pub fn speed(&self, load: Option<Duration>, adapter: &str, seed: u64) -> String {
        let plural = |n: usize| if n == 1 { "1 token".to_owned() } else { format!("{n} tokens") };
        let speed = |rate: Option<f64>| rate.map(|rate| format!(" at {rate:.1}/s")).unwrap_or_default();
        let times = self.timings(load.unwrap_or_default());
        let load = load.map(|load| format!("load {:.2} s, ", load.as_secs_f64())).unwrap_or_default();
        format!(
            "[{load}prompt {}{}, answer {}{}; {}; {adapter}; seed {seed}]",
            plural(self.prompt),
            speed(times.prefill_tokens_per_second),
            plural(self.ids.len()),
            speed(times.decode_tokens_per_second),
            self.end.words(),
        )
    }
}

/// What ends an answer, whichever comes first.
#[derive(Clone, Debug)]
pub struct Until {
    /// Most tokens.
    pub max_tokens: u32,
    /// Tokens.
    pub eos: Vec<u32>,
    /// Texts.
    pub stops: Vec<String>,
}

/// Continues slot 0 with `ids` and then with an answer. `show` gets the text as it comes.
///
/// # Errors
/// The engine's, the tokenizer's and those of `show`.
pub async fn answer(
    engine: &mut Engine,
    tokenizer: &Tokenizer,
    ids: &[u32],
    until: &Until,
    show: &mut dyn FnMut(&str) -> Result<()>,
) -> Result<Answer> {
    let answering = Answering::begin();
    let start = Instant::now();
    let mut writer = Writer {
        stream: tokenizer.stream(true),
        matcher: StopMatcher::new(until.stops.clone())?,
        show,
        ids: Vec::new(),
        text: String::new(),
    };
    let (mut end, mut failed, mut bar) = (None, None, None::<ProgressBar>);
    let (mut first, mut last) = (None, start);
    let mut on_event = |event| {
        match event {
            Event::Prefill { done, total } => {
                let bar = bar.get_or_insert_with(|| match done < total {
                    true => terminal::bar("reading", total as u64, false),
                    false => ProgressBar::hidden(),
                });
                bar.set_position(done as u64);
                if done == total {
                    bar.finish_and_clear();
                }
            }
            Event::Token(id) => {
                last = Instant::now();
                first.get_or_insert(last);
                match writer.take(id, &until.eos) {
                    Ok(found) => end = found,
                    Err(error) => failed = Some(error),
                }
            }
        }
        if answering.stopped() {
            end.get_or_insert(End::Interrupted);
        }
        if end.is_some() || failed.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let result = engine.generate(0, ids, until.max_tokens, &mut on_event).await;
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    if let Some(error) = failed {
        return Err(error);
    }
    result?;
    let full = if writer.ids.len() < until.max_tokens as usize { End::Context } else { End::Length };
    let end = end.unwrap_or(full);
    let (ids_out, text) = writer.finish()?;
    let first = first.unwrap_or(last);
    Ok(Answer { text, ids: ids_out, end, prompt: ids.len(), first: first - start, rest: last - first })
}

/// From tokens to text that may be shown.
struct Writer<'a> {
    stream: TextStream,
    matcher: StopMatcher,
    show: &'a mut dyn FnMut(&str) -> Result<()>,
    ids: Vec<u32>,
    text: String,
}

impl Writer<'_> {
    fn take(&mut self, id: u32, eos: &[u32]) -> Result<Option<End>> {
        if eos.contains(&id) {
            return Ok(Some(End::Eos));
        }
        self.ids.push(id);
        let piece = self.stream.push(id)?;
        let (safe, found) = self.matcher.push(&piece);
        self.put(&safe)?;
        Ok(found.then_some(End::Stop))
    }

    fn put(&mut self, text: &str) -> Result<()> {
        self.text.push_str(text);
        if text.is_empty() { Ok(()) } else { (self.show)(text) }
    }

    /// What was held back comes out now.
    fn finish(mut self) -> Result<(Vec<u32>, String)> {
        let (end, _) = self.matcher.push(&self.stream.finish());
        self.put(&end)?;
        let held = self.matcher.finish();
        self.put(&held)?;
        Ok((self.ids, self.text))
    }
}
