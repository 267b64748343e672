//! How text is put to the model: as it is, as questions and answers, or by the checkpoint's chat template.

use crate::args::{Format, Writing};
use crate::report::Usage;
use crate::source::Source;
use anyhow::{Result, bail};
use nemoflash::{ChatTemplate, Config, Message, Role, Tokenizer, USER_AGAIN, Until, instruct};

/// A format, with what it needs.
#[derive(Debug)]
pub struct Style {
    pub format: Format,
    /// For [`Format::Template`].
    template: Option<ChatTemplate>,
    /// What `--system` says.
    system: Option<String>,
    /// Tokens that end a text, besides those of config.json.
    eos: Vec<u32>,
}

impl Style {
    /// The wanted one, or in a chat the one that fits the model, and plain text elsewhere.
    ///
    /// # Errors
    /// If there is no chat template, or none that can be read, where one is wanted; [`Usage`] for `--system` without one.
    pub fn new(source: &Source, tokenizer: &Tokenizer, writing: &Writing, chat: bool) -> Result<Style> {
        let wanted = writing.format;
        let template = match wanted {
            Some(Format::Template) => source.chat_template()?,
            None if chat => source.chat_template()?,
            _ => None,
        };
        let format = match &template {
            Some(_) => Format::Template,
            None if chat && source.name.to_lowercase().contains("instruct") => wanted.unwrap_or(Format::Instruct),
            None => wanted.unwrap_or(Format::Text),
        };
        if format == Format::Template && template.is_none() {
            bail!(
                "{} has no chat template (chat_template in tokenizer_config.json, or chat_template.jinja). Use --format \
                 text or --format instruct",
                source.name
            );
        }
        if format != Format::Template && writing.system.is_some() {
            let why = "--system is for models with a chat template. Leave it out, or write it into the prompt";
            return Err(Usage(why.into()).into());
        }
        let mut eos = source.generation_eos()?;
        eos.extend(template.as_ref().and_then(ChatTemplate::eos_token).and_then(|token| tokenizer.id(token)));
        Ok(Style { format, template, system: writing.system.clone(), eos })
    }

    /// A conversation before its first turn.
    pub fn beginning(&self) -> Vec<Message> {
        self.system.iter().map(|text| Message::new(Role::System, text)).collect()
    }

    /// The ids of a conversation up to where the answer begins. In plain text, turns are simply one text.
    ///
    /// # Errors
    /// The tokenizer's and the template's.
    pub fn ids(&self, tokenizer: &Tokenizer, messages: &[Message]) -> Result<Vec<u32>> {
        Ok(match (self.format, &self.template) {
            (_, Some(template)) => template.encode(tokenizer, messages, true)?,
            (Format::Instruct, None) => tokenizer.encode(&instruct(messages), true)?,
            _ => {
                let text: String = messages.iter().map(|message| message.content.as_str()).collect();
                tokenizer.encode(&text, true)?
            }
        })
    }

    /// What ends an answer.
    pub fn until(&self, config: &Config, writing: &Writing) -> Until {
        let mut stops = writing.stop.clone();
        if self.format == Format::Instruct {
            stops.push(USER_AGAIN.into());
        }
        Until { max_tokens: writing.max_tokens, eos: [&config.eos[..], &self.eos].concat(), stops }
    }
}
