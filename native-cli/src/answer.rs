//! One answer: ids in, text out as it comes, with its times.

use crate::interrupt::Answering;
use crate::terminal;
use anyhow::Result;
use indicatif::ProgressBar;
use nemoflash::{End, Engine, Event, Sampling, Tokenizer, Transcript, Until, Writer};
use serde::Serialize;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

/// What ended an answer, for the speed line.
fn words(end: End) -> &'static str {
    match end {
        End::Eos => "the text ended",
        End::Stop => "a stop text came",
        End::Length => "--max-tokens reached",
        End::Context => "the context is full",
        End::Interrupted => "interrupted",
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
    /// Tokens of the prompt that had to be read: those behind the transcript's snapshot.
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
            words(self.end),
        )
    }
}

/// Brings slot 0 to the end of `ids` and continues with an answer. `show` gets the text as it comes.
///
/// # Errors
/// The engine's, the tokenizer's and those of `show`.
pub async fn answer(
    engine: &mut Engine,
    tokenizer: &Tokenizer,
    transcript: &mut Transcript,
    sampling: &Sampling,
    ids: &[u32],
    until: &Until,
    show: &mut dyn FnMut(&str) -> Result<()>,
) -> Result<Answer> {
    let answering = Answering::begin();
    let start = Instant::now();
    let mut writer = Writer::new(tokenizer, until.clone())?;
    let (mut text, mut failed, mut bar) = (String::new(), None, None::<ProgressBar>);
    let (mut first, mut last, mut prompt) = (None, start, 0);
    let mut put = |piece: &str| {
        text.push_str(piece);
        if piece.is_empty() { Ok(()) } else { show(piece) }
    };
    let mut on_event = |event| {
        match event {
            Event::Prefill { done, total } => {
                prompt = total;
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
                let shown = writer.push(id).map_err(Into::into).and_then(|piece| put(&piece));
                failed = shown.err();
            }
        }
        if answering.stopped() {
            writer.interrupt();
        }
        if writer.end().is_some() || failed.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let result = engine.answer(0, transcript, sampling, ids, until.max_tokens, &mut on_event).await;
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    if let Some(error) = failed {
        return Err(error);
    }
    result?;
    let (held, ids_out, end) = writer.finish();
    put(&held)?;
    let first = first.unwrap_or(last);
    transcript.set_read([ids, &ids_out].concat());
    Ok(Answer { text, ids: ids_out, end, prompt, first: first - start, rest: last - first })
}
