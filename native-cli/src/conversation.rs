//! A conversation: what the model has read, turn by turn.

use crate::answer::{Answer, End, Until, answer};
use crate::args::{Format, Writing};
use crate::style::Style;
use anyhow::Result;
use nemoflash::{Engine, Error, Message, Piece, Role, Sampling, Snapshot, Tokenizer};

/// A conversation in slot 0.
///
/// Each turn, the whole conversation is written anew and becomes ids; what these have in common with the tokens that
/// the model has read is not computed again, as far as a snapshot reaches. So an answer stands in the conversation as
/// the format writes it: a chat template may leave out what the model thought, or cut a text into other tokens.
///
/// The engine runs a few tokens ahead of an answer's end, so its memory after an answer is of no use. What is kept is
/// a snapshot from before what was new in the last turn.
#[derive(Debug)]
pub struct Conversation {
    pub engine: Engine,
    tokenizer: Tokenizer,
    style: Style,
    sampling: Sampling,
    until: Until,
    messages: Vec<Message>,
    /// Tokens of the conversation, the last answer among them.
    read: Vec<u32>,
    /// The sequence after the first so many of them.
    snapshot: Option<(Snapshot, usize)>,
}

impl Conversation {
    /// A fresh one.
    ///
    /// # Errors
    /// [`Error::Parameter`] if an option is out of its range.
    pub fn new(engine: Engine, tokenizer: Tokenizer, style: Style, writing: &Writing) -> Result<Conversation> {
        let sampling = writing.sampling();
        sampling.validate()?;
        let (until, messages) = (style.until(engine.config(), writing), style.beginning());
        Ok(Conversation { engine, tokenizer, style, sampling, until, messages, read: vec![], snapshot: None })
    }

    pub fn seed(&self) -> u64 {
        self.sampling.seed
    }

    /// Forgets everything.
    pub fn reset(&mut self) {
        self.messages = self.style.beginning();
        self.read.clear();
        self.forget_after(0);
    }

    /// Whether an empty line means something: in plain text, "go on".
    pub fn can_go_on(&self) -> bool {
        self.style.format == Format::Text && !self.read.is_empty()
    }

    /// The ids of the conversation with the user's text, up to where the answer begins.
    fn ids(&self, text: &str) -> Result<Vec<u32>> {
        if self.style.format != Format::Text {
            let new = Message::new(Role::User, text);
            return self.style.ids(&self.tokenizer, &[&self.messages[..], &[new]].concat());
        }
        // Plain text goes on behind the very tokens that were read.
        let last = self.messages.last().map_or("", |message| message.content.as_str());
        let new = match text {
            "" => vec![],
            _ if needs_space(last, text) => self.tokenizer.encode(&format!(" {text}"), false)?,
            _ => self.tokenizer.encode(text, self.read.is_empty())?,
        };
        Ok([&self.read[..], &new].concat())
    }

    /// The user's turn, then the model's. An empty text lets the model go on ([`Conversation::can_go_on`]).
    ///
    /// # Errors
    /// [`Error::Prompt`] if it does not fit any more; the conversation then is as before. Others are the engine's
    /// and those of `show`.
    pub async fn turn(&mut self, text: &str, show: &mut dyn FnMut(&str) -> Result<()>) -> Result<Answer> {
        let ids = self.ids(text)?;
        let context = self.engine.context() as usize;
        if ids.len() >= context {
            let why = format!("the conversation is full: with this turn it has {} tokens, of {context}", ids.len());
            return Err(Error::Prompt { why, next: "/reset begins a new one; --context N allows a longer one" }.into());
        }
        // The engine wants at least one token to continue: of an empty turn, that is the last one read.
        let known = ids.iter().zip(&self.read).take_while(|(new, old)| new == old).count();
        let known = known.min(ids.len().saturating_sub(1));
        self.forget_after(known);
        let start = match &self.snapshot {
            Some((snapshot, at)) => {
                self.engine.restore(0, snapshot)?;
                *at
            }
            None => {
                self.engine.begin(0, &self.sampling)?;
                0
            }
        };
        // Reads what came before, and comes back to this point next time.
        for tokens in ids[start..known].chunks(self.engine.options().prefill_rows as usize) {
            self.engine.step(&[Piece { slot: 0, tokens, pick: false }]).await?;
        }
        if start < known {
            let now = self.engine.snapshot(0).await?;
            if let Some((before, _)) = self.snapshot.replace((now, known)) {
                self.engine.release(before);
            }
        }
        let answer = answer(&mut self.engine, &self.tokenizer, &ids[known..], &self.until, show).await?;
        self.read = ids;
        match answer.end {
            // The stop text is not part of the conversation, and may begin inside a token.
            End::Stop => self.read.extend(self.tokenizer.encode(&answer.text, false)?),
            _ => self.read.extend(&answer.ids),
        }
        for (role, text) in [(Role::User, text), (Role::Assistant, &answer.text)] {
            if !text.is_empty() || self.style.format != Format::Text {
                self.messages.push(Message::new(role, text));
            }
        }
        Ok(answer)
    }

    /// Gives a snapshot up that stands behind the first `known` tokens.
    fn forget_after(&mut self, known: usize) {
        if let Some((snapshot, _)) = self.snapshot.take_if(|(_, at)| *at > known) {
            self.engine.release(snapshot);
        }
    }
}

/// Whether two pieces of plain text would otherwise grow together.
fn needs_space(before: &str, after: &str) -> bool {
    let closes = |c: char| c.is_whitespace() || ".,;:!?)'\"".contains(c);
    !before.is_empty() && !before.ends_with(char::is_whitespace) && !after.starts_with(closes)
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
