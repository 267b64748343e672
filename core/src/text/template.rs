//! Chat templates: the form in which a model wants a conversation. The files may come from strangers, so they are not
//! trusted.

use std::collections::BTreeMap;

use minijinja::Value;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::date::LocalTime;
use super::jinja::{Compiled, guard, strftime_now};
use super::message::{Message, Role};
use super::wrong::template as bad;
use crate::json;
use crate::{Error, Result};

/// Longest JSON file that contains a template. The longest ones in use have about 1 MB.
const MAX_FILE: usize = 16 << 20;
/// The most bytes of all messages together, and of a rendered text.
const MAX_MESSAGES: usize = 512 << 10;
const MAX_OUTPUT: usize = 1 << 20;
/// The names of special tokens that every tokenizer may have. A model may name more of its own.
const STANDARD_TOKENS: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// A chat template in Jinja, rendered as in transformers, but bounded in time and memory whatever the template says.
///
/// Templates see the messages, the special tokens by name, and the options of [`TemplateOptions`]. `tools` and
/// `documents` are `none`. `{% include %}` and similar tags, `{% block %}` and `{% autoescape %}` are errors, as are
/// filters that no prompt needs (`wordwrap`, `striptags` and similar ones). The error names the line.
pub struct ChatTemplate {
    jinja: Compiled,
    /// The texts of special tokens by name (`bos_token`).
    tokens: BTreeMap<String, String>,
    /// The quoted texts of the template that have no escapes.
    pub(super) quoted: Vec<String>,
}

/// What a caller chooses for one rendering of a chat template.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TemplateOptions {
    /// Whether the model thinks before it answers: the variable `enable_thinking`. `None` does not set the variable, and
    /// the template decides.
    pub thinking: Option<bool>,
    /// The date and time for `strftime_now`. Without it, templates do not have that function.
    pub now: Option<LocalTime>,
}

/// The files of a checkpoint that can have a chat template or special tokens. All of them are optional.
#[derive(Clone, Copy, Debug, Default)]
pub struct ChatFiles<'a> {
    /// `chat_template.jinja`: the template itself. It takes precedence over the other files.
    pub chat_template_jinja: Option<&'a [u8]>,
    /// `tokenizer_config.json`: its `chat_template` is a text or a list of named texts. It also has the texts of
    /// special tokens.
    pub tokenizer_config: Option<&'a [u8]>,
    /// `chat_template.json`: its `chat_template`.
    pub chat_template_json: Option<&'a [u8]>,
    /// `special_tokens_map.json`: texts of special tokens that `tokenizer_config.json` does not have.
    pub special_tokens_map: Option<&'a [u8]>,
}

/// The fields that are used from any of the JSON files.
#[derive(Default)]
struct Fields {
    chat_template: Option<Templates>,
    /// Texts of special tokens by name.
    tokens: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Templates {
    One(String),
    Named(Vec<Named>),
}

#[derive(Deserialize)]
struct Named {
    name: String,
    template: String,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Special {
    Text(String),
    Token { content: String },
}

impl Special {
    fn text(self) -> String {
        match self {
            Special::Text(text) | Special::Token { content: text } => text,
        }
    }
}

impl ChatTemplate {
    /// Compiles a template.
    ///
    /// # Errors
    ///
    /// [`Error::Template`] if it is longer than 128 KiB, is not Jinja, or uses something that is not supported.
    pub fn new(source: &str) -> Result<ChatTemplate> {
        let guarded = guard(source)?;
        let jinja = Compiled::new(guarded.source)?;
        Ok(ChatTemplate { jinja, tokens: BTreeMap::new(), quoted: guarded.quoted })
    }

    /// The template of a checkpoint, or `None` if it has none.
    ///
    /// # Errors
    ///
    /// As [`ChatTemplate::new`], and if a file cannot be read.
    pub fn read(files: &ChatFiles) -> Result<Option<ChatTemplate>> {
        let [config, json, map] = [
            ("tokenizer_config.json", files.tokenizer_config),
            ("chat_template.json", files.chat_template_json),
            ("special_tokens_map.json", files.special_tokens_map),
        ]
        .map(|(name, bytes)| fields(name, bytes));
        let (config, json, map) = (config?, json?, map?);
        let source = match files.chat_template_jinja {
            Some(bytes) if bytes.len() > MAX_FILE => return Err(bad("chat_template.jinja is too long")),
            Some(bytes) => {
                let text = std::str::from_utf8(json::without_mark(bytes));
                Some(text.map_err(|e| bad(format!("chat_template.jinja: {e}")))?.to_owned())
            }
            None => match config.chat_template.or(json.chat_template) {
                None => None,
                Some(Templates::One(source)) => Some(source),
                Some(Templates::Named(list)) => {
                    let default = list.into_iter().find(|named| named.name == "default");
                    Some(default.ok_or_else(|| bad("none of the templates is named `default`"))?.template)
                }
            },
        };
        let Some(source) = source else { return Ok(None) };
        let mut template = ChatTemplate::new(&source)?;
        template.tokens = [map.tokens, config.tokens].into_iter().flatten().collect();
        Ok(Some(template))
    }

    /// Sets the text of a special token that the template knows by name (`bos_token`, `eos_token`).
    pub fn set_token(&mut self, name: &str, text: &str) {
        self.tokens.insert(name.to_owned(), text.to_owned());
    }

    /// The text of the token that ends an answer, if the checkpoint names one.
    pub fn eos_token(&self) -> Option<&str> {
        self.tokens.get("eos_token").map(String::as_str)
    }

    /// The conversation as the template writes it. With `add_generation_prompt`, it ends where the answer begins.
    ///
    /// To run the conversation, use [`ChatTemplate::encode`]: in this text, control tokens and messages that spell them
    /// look the same.
    ///
    /// # Errors
    ///
    /// [`Error::Template`] if the template fails, refuses the conversation (`raise_exception`), uses up its fuel, or
    /// writes more than 1 MiB. [`Error::Prompt`] if the messages have more than 512 KiB of text.
    pub fn render(
        &self,
        messages: &[Message],
        add_generation_prompt: bool,
        options: &TemplateOptions,
    ) -> Result<String> {
        let bytes = messages.iter().map(|message| message.content.len()).sum::<usize>();
        if bytes > MAX_MESSAGES {
            return Err(Error::Prompt {
                why: format!("{bytes} bytes of messages are more than the {MAX_MESSAGES} that a chat template takes"),
                next: "Shorten them, or begin a new conversation",
            });
        }
        let text = self.render_any(messages, add_generation_prompt, options)?;
        if text.len() > MAX_OUTPUT {
            return Err(bad(format!("it writes {} bytes, more than {MAX_OUTPUT}", text.len())));
        }
        Ok(text)
    }

    /// As [`ChatTemplate::render`], but without a limit on the length of the result, except by the fuel.
    pub(super) fn render_any(
        &self,
        messages: &[Message],
        add_generation_prompt: bool,
        options: &TemplateOptions,
    ) -> Result<String> {
        let messages: Vec<Value> = messages
            .iter()
            .map(|message| {
                let role = match message.role {
                    Role::System => "system",
                    Role::User => "user",
                    Role::Assistant => "assistant",
                };
                Value::from_pairs([("role", role), ("content", message.content.as_str())])
            })
            .collect();
        let none = |name| (name, Value::from(()));
        let tokens = self.tokens.iter().map(|(name, text)| (name.as_str(), Value::from(text.as_str())));
        // Of two variables with the same name, the later one counts. So a token cannot hide the messages.
        let mut context: Vec<(&str, Value)> = tokens.collect();
        context.extend([
            ("messages", Value::from(messages)),
            ("add_generation_prompt", Value::from(add_generation_prompt)),
            none("tools"),
            none("documents"),
        ]);
        context.extend(options.thinking.map(|thinking| ("enable_thinking", Value::from(thinking))));
        context.extend(options.now.map(|now| ("strftime_now", strftime_now(now))));
        self.jinja.render(context)
    }
}

fn fields(file: &str, bytes: Option<&[u8]>) -> Result<Fields> {
    let Some(bytes) = bytes else { return Ok(Fields::default()) };
    if bytes.len() > MAX_FILE {
        return Err(bad(format!("{file} has more than {MAX_FILE} bytes")));
    }
    let broken = |e: serde_json::Error| bad(format!("{file}: {e}"));
    let (json, mut fields) = (json::plain(bytes), Fields::default());
    for (key, value) in serde_json::from_slice::<BTreeMap<String, &RawValue>>(&json).map_err(broken)? {
        match key.as_str() {
            "chat_template" => {
                let wrong = |_| bad(format!("{file}: `chat_template` is neither a text nor a list of named templates"));
                fields.chat_template = serde_json::from_str(value.get()).map_err(wrong)?;
            }
            // A model's own special tokens by name. If they are a list, they have no names.
            "extra_special_tokens" | "model_specific_special_tokens" => {
                let named: BTreeMap<String, Special> = serde_json::from_str(value.get()).unwrap_or_default();
                fields.tokens.extend(named.into_iter().map(|(name, token)| (name, token.text())));
            }
            _ if key.ends_with("_token") => match serde_json::from_str::<Option<Special>>(value.get()) {
                Ok(token) => fields.tokens.extend(token.map(|token| (key, token.text()))),
                // Other keys are settings, such as `add_bos_token`.
                Err(_) if !STANDARD_TOKENS.contains(&key.as_str()) => {}
                Err(_) => return Err(bad(format!("{file}: `{key}` is neither a text nor a token with `content`"))),
            },
            _ => {}
        }
    }
    Ok(fields)
}

impl std::fmt::Debug for ChatTemplate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChatTemplate").field("tokens", &self.tokens).finish_non_exhaustive()
    }
}
