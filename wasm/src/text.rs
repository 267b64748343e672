//! The text side of a model, from JavaScript.

use crate::{coded, fail, options};
use nemoflash::{ChatFiles, Message, ModelText, Role, TextFiles};
use serde::Deserialize;
use wasm_bindgen::prelude::*;

/// Tokenizer, chat template, and what ends an answer.
#[wasm_bindgen]
pub struct Text(pub(crate) ModelText);

#[derive(Deserialize)]
struct Turn {
    role: String,
    content: String,
}

#[wasm_bindgen]
impl Text {
    /// Reads the model's small files. All but the tokenizer may be missing. The model's name may choose the chat format.
    #[wasm_bindgen(constructor)]
    pub fn new(
        name: &str,
        tokenizer_json: &[u8],
        generation_config: Option<Vec<u8>>,
        tokenizer_config: Option<Vec<u8>>,
        special_tokens_map: Option<Vec<u8>>,
        chat_template_jinja: Option<Vec<u8>>,
        chat_template_json: Option<Vec<u8>>,
    ) -> Result<Text, JsValue> {
        let chat = ChatFiles {
            chat_template_jinja: chat_template_jinja.as_deref(),
            tokenizer_config: tokenizer_config.as_deref(),
            chat_template_json: chat_template_json.as_deref(),
            special_tokens_map: special_tokens_map.as_deref(),
        };
        let generation_config = generation_config.as_deref();
        let text = ModelText::new(&TextFiles { name, tokenizer_json, generation_config, chat }).map_err(fail)?;
        // A page asks whether there is a template. So a template that cannot be used is an error already here.
        text.template().map_err(fail)?;
        Ok(Text(text))
    }
}

/// The messages of a conversation (JSON: a list of `{role, content}`).
pub(crate) fn messages(json: &str) -> Result<Vec<Message>, JsValue> {
    let turns: Vec<Turn> = options(json)?;
    let message = |turn: Turn| {
        let role = match turn.role.as_str() {
            "system" => Role::System,
            "user" => Role::User,
            "assistant" => Role::Assistant,
            other => {
                let why = format!("`role`: `{other}` is not one of system, user, assistant");
                return Err(coded("parameter", &why));
            }
        };
        Ok(Message::new(role, turn.content))
    };
    turns.into_iter().map(message).collect()
}
