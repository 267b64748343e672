//! A conversation: what the model has read, turn by turn.

use crate::answer::{Answer, End, answer};
use crate::args::{Format, Writing};
use anyhow::Result;
use nemoflash::{Engine, Error, Piece, Sampling, Snapshot, Tokenizer};

/// In front of a user's text, between it and the answer, and what shows that the model goes on as the user.
const USER: &str = "User: ";
const ASSISTANT: &str = "\nAssistant:";
const USER_AGAIN: &str = "\nUser:";

/// A conversation in slot 0.
///
/// The engine runs a few tokens ahead of an answer's end, so its memory after an answer is of no use. What is kept is
/// a snapshot from before the last turn and the tokens since then, which are read again, in one go, with the next.
#[derive(Debug)]
pub struct Conversation {
    pub engine: Engine,
    tokenizer: Tokenizer,
    format: Format,
    sampling: Sampling,
    max_tokens: u32,
    stops: Vec<String>,
    snapshot: Option<Snapshot>,
    /// Tokens since the snapshot.
    since: Vec<u32>,
    /// The end of the last answer, once there is one.
    last: Option<String>,
}

impl Conversation {
    /// A fresh one.
    ///
    /// # Errors
    /// [`Error::Parameter`] if an option is out of its range.
    pub fn new(engine: Engine, tokenizer: Tokenizer, format: Format, writing: &Writing) -> Result<Conversation> {
        let mut stops = writing.stop.clone();
        if format == Format::Instruct {
            stops.push(USER_AGAIN.into());
        }
        let (sampling, max_tokens) = (writing.sampling(), writing.max_tokens);
        sampling.validate()?;
        Ok(Conversation {
            engine,
            tokenizer,
            format,
            sampling,
            max_tokens,
            stops,
            snapshot: None,
            since: vec![],
            last: None,
        })
    }

    pub fn seed(&self) -> u64 {
        self.sampling.seed
    }

    /// Forgets everything.
    pub fn reset(&mut self) {
        if let Some(snapshot) = self.snapshot.take() {
            self.engine.release(snapshot);
        }
        self.since.clear();
        self.last = None;
    }

    /// Whether an empty line means something: in plain text, "go on".
    pub fn can_go_on(&self) -> bool {
        self.format == Format::Text && self.last.is_some()
    }

    /// The user's text as the model reads it after what came before.
    fn framed(&self, text: &str) -> String {
        match (self.format, &self.last) {
            (Format::Instruct, None) => format!("{USER}{text}{ASSISTANT}"),
            (Format::Instruct, Some(_)) => format!("\n{USER}{text}{ASSISTANT}"),
            (Format::Text, Some(last)) if needs_space(last, text) => format!(" {text}"),
            (Format::Text, _) => text.to_owned(),
        }
    }

    /// The user's turn, then the model's. An empty text lets the model go on ([`Conversation::can_go_on`]).
    ///
    /// # Errors
    /// [`Error::Prompt`] if it does not fit any more; the conversation then is as before. Others are the engine's
    /// and those of `show`.
    pub async fn turn(&mut self, text: &str, show: &mut dyn FnMut(&str) -> Result<()>) -> Result<Answer> {
        let new = match text {
            "" => vec![],
            _ => self.tokenizer.encode(&self.framed(text), self.last.is_none())?,
        };
        self.rewind(new.len())?;
        // Reads what came before, and comes back to this point next time. The engine wants at least one token to
        // continue: of an empty turn, that is the last of them.
        let mut tokens = std::mem::take(&mut self.since);
        let held = tokens.split_off(tokens.len() - usize::from(new.is_empty()));
        for tokens in tokens.chunks(self.engine.options().prefill_rows as usize) {
            self.engine.step(&[Piece { slot: 0, tokens, pick: false }]).await?;
        }
        if !tokens.is_empty() {
            let now = self.engine.snapshot(0).await?;
            if let Some(before) = self.snapshot.replace(now) {
                self.engine.release(before);
            }
        }
        let ids = [held, new].concat();
        self.since = ids.clone();
        let stops = self.stops.clone();
        let answer = answer(&mut self.engine, &self.tokenizer, &ids, self.max_tokens, stops, show).await?;
        match answer.end {
            // The stop text is not part of the conversation, and may begin inside a token.
            End::Stop => self.since.extend(self.tokenizer.encode(&answer.text, false)?),
            _ => self.since.extend(&answer.ids),
        }
        self.last = Some(if answer.text.is_empty() { text.to_owned() } else { answer.text.clone() });
        Ok(answer)
    }

    /// Back to the snapshot, if `new` tokens and one of an answer fit after what came since.
    fn rewind(&mut self, new: usize) -> Result<()> {
        let context = self.engine.context() as usize;
        match &self.snapshot {
            Some(snapshot) => self.engine.restore(0, snapshot)?,
            None => self.engine.begin(0, &self.sampling)?,
        }
        let used = self.engine.position(0)? as usize + self.since.len();
        if used + new < context {
            return Ok(());
        }
        let why = format!("the conversation is full: {used} of {context} tokens are used, and {new} more do not fit");
        Err(Error::Prompt { why, next: "/reset begins a new one; --context N allows a longer one" }.into())
    }
}

/// Whether two pieces of plain text would otherwise grow together.
fn needs_space(before: &str, after: &str) -> bool {
    let closes = |c: char| c.is_whitespace() || ".,;:!?)'\"".contains(c);
    !before.ends_with(char::is_whitespace) && !after.starts_with(closes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_stay_apart() {
        assert!(needs_space("the King", "and"));
        assert!(!needs_space("the King\n", "and") && !needs_space("the King", ", and") && !needs_space("a", " b"));
    }
}
