//! Turns the tokens of an answer into text that may be shown, and notices what ends the answer.

use super::stop::StopMatcher;
use super::stream::TextStream;
use super::tokenizer::Tokenizer;
use crate::Result;
use serde::Serialize;

/// What ended an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum End {
    /// The model chose a token that ends the text.
    Eos,
    /// The model wrote a stop text.
    Stop,
    /// The answer has as many tokens as were wanted.
    Length,
    /// The context is full.
    Context,
    /// The user interrupted it.
    Interrupted,
}

/// What ends an answer, whichever comes first.
#[derive(Clone, Debug, Default)]
pub struct Until {
    /// The most tokens of the answer.
    pub max_tokens: u32,
    /// Tokens that end the answer. They are not part of it.
    pub eos: Vec<u32>,
    /// Stop texts: texts that end the answer. They are not part of it.
    pub stops: Vec<String>,
}

/// Turns tokens into text that may be shown: only whole characters, and nothing that may become a stop text.
///
/// Special tokens are not shown, but stop texts see them: the stop text `<|im_end|>` ends an answer in which the model
/// chooses that token.
#[derive(Debug)]
pub struct Writer {
    /// Decodes without special tokens.
    stream: TextStream,
    /// Decodes with special tokens.
    special: TextStream,
    matcher: StopMatcher,
    until: Until,
    ids: Vec<u32>,
    end: Option<End>,
}

impl Writer {
    /// Makes a writer for an answer that begins.
    ///
    /// # Errors
    /// As [`StopMatcher::new`].
    pub fn new(tokenizer: &Tokenizer, until: Until) -> Result<Writer> {
        let matcher = StopMatcher::new(until.stops.clone())?;
        let [stream, special] = [tokenizer.stream(true), tokenizer.stream(false)];
        Ok(Writer { stream, special, matcher, until, ids: vec![], end: None })
    }

    /// Takes the next token, and returns the text that may be shown now.
    pub fn push(&mut self, id: u32) -> String {
        if self.until.eos.contains(&id) {
            self.end.get_or_insert(End::Eos);
            return String::new();
        }
        self.ids.push(id);
        let (shown, found) = match self.stream.is_special(id) {
            true => self.matcher.push_hidden(&self.special.push(id)),
            false => self.matcher.push(&self.stream.push(id)),
        };
        if found {
            self.end.get_or_insert(End::Stop);
        }
        shown
    }

    /// The user wants no more.
    pub fn interrupt(&mut self) {
        self.end.get_or_insert(End::Interrupted);
    }

    /// What has ended the answer, if it has ended.
    pub fn end(&self) -> Option<End> {
        self.end
    }

    /// The text that was held back, the tokens without one that ended the answer, and what ended it.
    pub fn finish(mut self) -> (String, Vec<u32>, End) {
        let full = if self.ids.len() < self.until.max_tokens as usize { End::Context } else { End::Length };
        let (safe, _) = self.matcher.push(&self.stream.finish());
        (safe + &self.matcher.finish(), self.ids, self.end.unwrap_or(full))
    }
}
