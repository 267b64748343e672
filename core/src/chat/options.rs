//! What a caller may choose for an answer.

use crate::sampling::Sampling;
use crate::text::TemplateOptions;
use serde::{Deserialize, Serialize};

/// How a conversation becomes one text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChatFormat {
    /// Plain text: the messages one behind the other, which the model continues.
    Text,
    /// Questions and answers: `User: ...`, `Assistant:`.
    Instruct,
    /// Questions and answers as the model's own chat template writes them.
    Template,
}

/// What a caller may choose for an answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ChatOptions {
    /// How the conversation becomes one text; see [`ModelText::format`](super::ModelText::format).
    pub format: Option<ChatFormat>,
    /// What a chat template is told.
    pub template: TemplateOptions,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Longest answer in tokens.
    pub max_tokens: u32,
    /// Texts that end the answer and are no part of it.
    pub stop: Vec<String>,
}
