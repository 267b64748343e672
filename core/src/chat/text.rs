//! The text side of a model: how messages become tokens, and what ends an answer.

use super::options::{ChatFormat, ChatOptions};
use crate::config::{Config, Generation};
use crate::sampling::Sampling;
use crate::text::{ChatFiles, ChatTemplate, Message, Tokenizer, USER_AGAIN, Until, Writer, instruct};
use crate::{Error, Result};
use std::sync::OnceLock;

/// The small files of a model that its text side needs. Only the tokenizer is required.
#[derive(Clone, Copy, Debug, Default)]
pub struct TextFiles<'a> {
    /// The model's name: that of its folder or of its repository. It may select the chat format, see
    /// [`ChatFormat::by_name`].
    pub name: &'a str,
    /// `tokenizer.json`.
    pub tokenizer_json: &'a [u8],
    /// `generation_config.json`.
    pub generation_config: Option<&'a [u8]>,
    /// The files that can have a chat template.
    pub chat: ChatFiles<'a>,
}

/// The text side of a model: tokenizer, chat template, and what ends an answer. Any number of conversations share one.
#[derive(Debug)]
pub struct ModelText {
    name: String,
    tokenizer: Tokenizer,
    /// The template, or the error of reading it, which is reported when the template is needed.
    template: Result<Option<ChatTemplate>, String>,
    generation: Generation,
    /// The token that ends a turn in the template. It is computed when it is first needed.
    turn_end: OnceLock<Option<u32>>,
}

impl ModelText {
    /// Reads the files.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] and [`Error::Config`] if `tokenizer.json` or `generation_config.json` cannot be used. A
    /// chat template that cannot be used is an error only when it is needed.
    pub fn new(files: &TextFiles) -> Result<ModelText> {
        let tokenizer = Tokenizer::from_bytes(files.tokenizer_json)?;
        let template = match ChatTemplate::read(&files.chat) {
            Ok(template) => Ok(template),
            Err(Error::Template { why }) => Err(why),
            Err(other) => return Err(other),
        };
        let generation = files.generation_config.map_or_else(|| Ok(Generation::default()), Generation::read)?;
        Ok(ModelText { name: files.name.to_owned(), tokenizer, template, generation, turn_end: OnceLock::new() })
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The chat template, or `None` if the model has none.
    ///
    /// # Errors
    /// [`Error::Template`] if it cannot be used.
    pub fn template(&self) -> Result<Option<&ChatTemplate>> {
        self.template.as_ref().map(Option::as_ref).map_err(|why| Error::Template { why: why.clone() })
    }

    /// The format of a conversation: the one that the options name, or else the model's chat template if it has one, or
    /// else the one of [`ChatFormat::by_name`].
    ///
    /// # Errors
    /// [`Error::Template`] if the model's chat template decides and cannot be used.
    pub fn format(&self, options: &ChatOptions) -> Result<ChatFormat> {
        Ok(match options.format {
            Some(format) => format,
            None if self.template()?.is_some() => ChatFormat::Template,
            None => ChatFormat::by_name(&self.name),
        })
    }

    /// The tokens of a conversation, up to where the answer begins.
    ///
    /// # Errors
    /// [`Error::Template`] if the format needs a chat template that the model does not have or that cannot be used.
    /// Others as [`ChatTemplate::encode`] and [`Tokenizer::encode`].
    pub fn encode(&self, messages: &[Message], options: &ChatOptions) -> Result<Vec<u32>> {
        match self.format(options)? {
            ChatFormat::Template => {
                let none = || Error::Template { why: "this model has none".to_owned() };
                self.template()?.ok_or_else(none)?.encode(&self.tokenizer, messages, true, &options.template)
            }
            ChatFormat::Instruct => self.tokenizer.encode(&instruct(messages), true),
            ChatFormat::Text => {
                let text: String = messages.iter().map(|message| message.content.as_str()).collect();
                self.tokenizer.encode(&text, true)
            }
        }
    }

    /// The tokens of plain text that goes on after a text that ends with `last`. `first` says that nothing is in front
    /// of it.
    pub(super) fn continued(&self, last: &str, text: &str, first: bool) -> Result<Vec<u32>> {
        match text {
            "" => Ok(vec![]),
            _ if needs_space(last, text) => self.tokenizer.encode(&format!(" {text}"), false),
            _ => self.tokenizer.encode(text, first),
        }
    }

    /// How tokens are chosen if the caller leaves it open: the values of `generation_config.json`, or else of
    /// [`defaults::SAMPLING`](crate::defaults::SAMPLING).
    pub fn usual(&self) -> &Sampling {
        &self.generation.sampling
    }

    /// A writer that turns the tokens of an answer into text, and notices its end.
    ///
    /// # Errors
    /// As [`Writer::new`] and [`ModelText::format`].
    pub fn writer(&self, config: &Config, options: &ChatOptions) -> Result<Writer> {
        let format = self.format(options)?;
        let mut until = Until {
            max_tokens: options.max_tokens,
            eos: [&config.eos[..], &self.generation.eos].concat(),
            stops: options.stop.clone(),
        };
        match format {
            ChatFormat::Text => {}
            ChatFormat::Instruct => until.stops.push(USER_AGAIN.to_owned()),
            ChatFormat::Template => {
                let template = self.template()?;
                let named = template.and_then(ChatTemplate::eos_token).and_then(|token| self.tokenizer.id(token));
                let written = self.turn_end.get_or_init(|| template?.turn_end(&self.tokenizer, &options.template));
                until.eos.extend(named.into_iter().chain(*written));
            }
        }
        Writer::new(&self.tokenizer, until)
    }
}

/// Whether two pieces of plain text need a space between them.
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
