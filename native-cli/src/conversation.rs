//! A conversation: what the model has read, turn by turn.

use crate::answer::{Answer, answer};
use crate::args::{Format, Writing};
use crate::style::Style;
use anyhow::Result;
use nemoflash::{End, Engine, Error, Message, Role, Sampling, Tokenizer, Transcript, Until};

/// A conversation in slot 0.
///
/// Each turn, the whole conversation is written anew and becomes ids; what these have in common with the tokens that
/// the model has read is not computed again, as far as its [`Transcript`] reaches. So an answer stands in the conversation
/// as the format writes it: a chat template may leave out what the model thought, or cut a text into other tokens.
#[derive(Debug)]
pub struct Conversation {
    pub engine: Engine,
    tokenizer: Tokenizer,
    style: Style,
    sampling: Sampling,
    until: Until,
    messages: Vec<Message>,
    transcript: Transcript,
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
        Ok(Conversation { engine, tokenizer, style, sampling, until, messages, transcript: Transcript::default() })
    }

    pub fn seed(&self) -> u64 {
        self.sampling.seed
    }

    /// Forgets everything.
    pub fn reset(&mut self) {
        self.messages = self.style.beginning();
        self.transcript.clear(&mut self.engine);
    }

    /// Whether an empty line means something: in plain text, "go on".
    pub fn can_go_on(&self) -> bool {
        self.style.format == Format::Text && !self.transcript.read().is_empty()
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
            _ => self.tokenizer.encode(text, self.transcript.read().is_empty())?,
        };
        Ok([self.transcript.read(), &new].concat())
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
        let (tokenizer, transcript) = (&self.tokenizer, &mut self.transcript);
        let answer = answer(&mut self.engine, tokenizer, transcript, &self.sampling, &ids, &self.until, show).await?;
        if answer.end == End::Stop {
            // The stop text is not part of the conversation, and may begin inside a token.
            transcript.set_read([&ids[..], &tokenizer.encode(&answer.text, false)?].concat());
        }
        for (role, text) in [(Role::User, text), (Role::Assistant, &answer.text)] {
            if !text.is_empty() || self.style.format != Format::Text {
                self.messages.push(Message::new(role, text));
            }
        }
        Ok(answer)
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
