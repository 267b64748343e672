//! How text is put to the model.

use crate::{coded, fail, options};
use nemoflash::{ChatFiles, ChatTemplate, Message, Role, Tokenizer, config, instruct};
use serde::Deserialize;
use wasm_bindgen::prelude::*;

/// Tokenizer, chat template, and the tokens that end a text.
#[wasm_bindgen]
pub struct Text {
    pub(crate) tokenizer: Tokenizer,
    template: Option<ChatTemplate>,
    /// Besides those of config.json.
    pub(crate) eos: Vec<u32>,
}

#[derive(Deserialize)]
struct Turn {
    role: String,
    content: String,
}

#[wasm_bindgen]
impl Text {
    /// From the model's small files; all but the first may be missing.
    #[wasm_bindgen(constructor)]
    pub fn new(
        tokenizer_json: &[u8],
        generation_config: Option<Vec<u8>>,
        tokenizer_config: Option<Vec<u8>>,
        special_tokens_map: Option<Vec<u8>>,
        chat_template_jinja: Option<Vec<u8>>,
        chat_template_json: Option<Vec<u8>>,
    ) -> Result<Text, JsValue> {
        let tokenizer = Tokenizer::from_bytes(tokenizer_json).map_err(fail)?;
        let template = ChatTemplate::read(&ChatFiles {
            chat_template_jinja: chat_template_jinja.as_deref(),
            tokenizer_config: tokenizer_config.as_deref(),
            chat_template_json: chat_template_json.as_deref(),
            special_tokens_map: special_tokens_map.as_deref(),
        })
        .map_err(fail)?;
        let mut eos = generation_config.as_deref().map_or(Ok(vec![]), config::generation_eos).map_err(fail)?;
        eos.extend(template.as_ref().and_then(ChatTemplate::eos_token).and_then(|token| tokenizer.id(token)));
        Ok(Text { tokenizer, template, eos })
    }

    /// Whether the model has a chat template.
    pub fn has_template(&self) -> bool {
        self.template.is_some()
    }
}

impl Text {
    /// The ids of a conversation (JSON: a list of `{role, content}`) in a format, up to where the answer begins.
    pub(crate) fn ids(&self, messages_json: &str, format: &str) -> Result<Vec<u32>, JsValue> {
        let turns: Vec<Turn> = options(messages_json)?;
        let message = |turn: Turn| {
            let role = match turn.role.as_str() {
                "system" => Role::System,
                "user" => Role::User,
                "assistant" => Role::Assistant,
                other => {
                    return Err(coded(
                        "parameter",
                        &format!("`role`: `{other}` is not one of system, user, assistant"),
                    ));
                }
            };
            Ok(Message::new(role, turn.content))
        };
        let messages: Vec<Message> = turns.into_iter().map(message).collect::<Result<_, _>>()?;
        match (format, &self.template) {
            ("template", Some(template)) => template.encode(&self.tokenizer, &messages, true).map_err(fail),
            ("template", None) => {
                Err(coded("template", "this model has no chat template. Use the format text or instruct"))
            }
            ("instruct", _) => self.tokenizer.encode(&instruct(&messages), true).map_err(fail),
            ("text", _) => {
                let text: String = messages.iter().map(|message| message.content.as_str()).collect();
                self.tokenizer.encode(&text, true).map_err(fail)
            }
            (other, _) => {
                Err(coded("parameter", &format!("`format`: `{other}` is not one of text, instruct, template")))
            }
        }
    }
}
