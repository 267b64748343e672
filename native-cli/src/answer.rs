//! One answer on the terminal: shows its text, times it, and handles Ctrl-C.

use crate::interrupt::Answering;
use crate::terminal;
use anyhow::Result;
use indicatif::ProgressBar;
use nemoflash::{ChatEvent, End};
use serde::Serialize;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

/// Why an answer ended, for the speed line.
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
    /// The answer.
    pub said: nemoflash::Answer,
    /// Time from the prompt to the first token.
    pub first: Duration,
    /// Time from the first token to the last.
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
    /// Tokens of the prompt that the model read. Those that an earlier turn has left in memory are not read again.
    fn read(&self) -> usize {
        self.said.prompt_tokens - self.said.cached_tokens
    }

    /// Times and speeds. Decode counts from the first token on, because prefill computes that token.
    pub fn timings(&self, load: Duration) -> Timings {
        let decoded = self.said.ids.len().saturating_sub(1);
        let read = self.read();
        Timings {
            load_seconds: load.as_secs_f64(),
            prefill_seconds: self.first.as_secs_f64(),
            prefill_tokens: read,
            prefill_tokens_per_second: rate(read, self.first),
            decode_seconds: self.rest.as_secs_f64(),
            decode_tokens: decoded,
            decode_tokens_per_second: rate(decoded, self.rest),
        }
    }

    /// Times and speeds as one line of text.
    pub fn speed(&self, load: Option<Duration>, adapter: &str, seed: u64) -> String {
        let plural = |n: usize| if n == 1 { "1 token".to_owned() } else { format!("{n} tokens") };
        let speed = |rate: Option<f64>| rate.map(|rate| format!(" at {rate:.1}/s")).unwrap_or_default();
        let times = self.timings(load.unwrap_or_default());
        let load = load.map(|load| format!("load {:.2} s, ", load.as_secs_f64())).unwrap_or_default();
        format!(
            "[{load}prompt {}{}, answer {}{}; {}; {adapter}; seed {seed}]",
            plural(self.read()),
            speed(times.prefill_tokens_per_second),
            plural(self.said.ids.len()),
            speed(times.decode_tokens_per_second),
            words(self.said.end),
        )
    }
}

/// Measures a turn of a conversation, shows its text as it comes, and lets Ctrl-C stop it.
pub struct Show<'a> {
    answering: Answering,
    show: &'a mut dyn FnMut(&str) -> Result<()>,
    failed: Option<anyhow::Error>,
    bar: Option<ProgressBar>,
    start: Instant,
    /// When the first token came.
    first: Option<Instant>,
    last: Instant,
}

impl<'a> Show<'a> {
    /// Begins a turn. `show` gets the text as it comes.
    pub fn begin(show: &'a mut dyn FnMut(&str) -> Result<()>) -> Show<'a> {
        let (answering, start) = (Answering::begin(), Instant::now());
        Show { answering, show, failed: None, bar: None, start, first: None, last: start }
    }

    /// Handles an event of the turn, and says whether the turn goes on.
    pub fn on_event(&mut self, event: ChatEvent) -> ControlFlow<()> {
        match event {
            ChatEvent::Prefill { done, total } => self.read(done, total),
            ChatEvent::Token { text, .. } => {
                self.last = Instant::now();
                self.first.get_or_insert(self.last);
                self.put(&text);
            }
            ChatEvent::Rest(text) => self.put(&text),
        }
        if self.failed.is_some() || self.answering.stopped() {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    }

    fn read(&mut self, done: usize, total: usize) {
        let bar = self.bar.get_or_insert_with(|| match done < total {
            true => terminal::bar("reading", total as u64, false),
            false => ProgressBar::hidden(),
        });
        bar.set_position(done as u64);
        if done == total {
            bar.finish_and_clear();
        }
    }

    fn put(&mut self, text: &str) {
        if !text.is_empty() && self.failed.is_none() {
            self.failed = (self.show)(text).err();
        }
    }

    /// Ends the turn: its answer with the times.
    ///
    /// # Errors
    /// Those of the turn and of `show`.
    pub fn end(self, turn: nemoflash::Result<nemoflash::Answer>) -> Result<Answer> {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
        if let Some(error) = self.failed {
            return Err(error);
        }
        let first = self.first.unwrap_or(self.last);
        Ok(Answer { said: turn?, first: first - self.start, rest: self.last - first })
    }
}
