//! An answer as it comes: tokens in, text that may be shown out, and what ends it.

use super::{StopMatcher, TextStream, Tokenizer};
use crate::Result;
use serde::Serialize;

/// What ended an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum End {
    /// The model's own end of the text.
    Eos,
    /// A stop text.
    Stop,
    /// As many tokens as were wanted.
    Length,
    /// The context is full.
    Context,
    /// The person.
    Interrupted,
}

/// What ends an answer, whichever comes first.
#[derive(Clone, Debug, Default)]
pub struct Until {
    /// Most tokens.
    pub max_tokens: u32,
    /// Tokens that are not part of the text.
    pub eos: Vec<u32>,
    /// Texts that are not part of it.
    pub stops: Vec<String>,
}

/// From tokens to text that may be shown: whole characters, and nothing that may become a stop text.
///
/// Special tokens are not shown, but stop texts see them: `<|im_end|>` ends an answer whose model chooses that token.
#[derive(Debug)]
pub struct Writer {
    /// Without special tokens.
    stream: TextStream,
    /// Special tokens alone.
    special: TextStream,
    matcher: StopMatcher,
    until: Until,
    ids: Vec<u32>,
    end: Option<End>,
}

impl Writer {
    /// Before the first token.
    ///
    /// # Errors
    /// As [`StopMatcher::new`].
    pub fn new(tokenizer: &Tokenizer, until: Until) -> Result<Writer> {
        let matcher = StopMatcher::new(until.stops.clone())?;
        let [stream, special] = [tokenizer.stream(true), tokenizer.stream(false)];
        Ok(Writer { stream, special, matcher, until, ids: vec![], end: None })
    }

    /// Takes the next token, and gives the text that may be shown now.
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

    /// The person wants no more.
    pub fn interrupt(&mut self) {
        self.end.get_or_insert(End::Interrupted);
    }

    /// What has ended it.
    pub fn end(&self) -> Option<End> {
        self.end
    }

    /// The text that was held back, the tokens without one that ended the text, and what ended it.
    pub fn finish(mut self) -> (String, Vec<u32>, End) {
        let full = if self.ids.len() < self.until.max_tokens as usize { End::Context } else { End::Length };
        let (safe, _) = self.matcher.push(&self.stream.finish());
        (safe + &self.matcher.finish(), self.ids, self.end.unwrap_or(full))
    }
}
