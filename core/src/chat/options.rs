//! What a caller may choose for an answer.

use crate::sampling::Sampling;
use crate::text::TemplateOptions;
use serde::{Deserialize, Serialize};

/// How a conversation becomes one text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChatFormat {
    /// Plain text: the messages one after the other. The model continues them.
    Text,
    /// Questions and answers: `User: ...`, `Assistant:`.
    Instruct,
    /// Questions and answers in the model's own chat template.
    Template,
}

/// What a caller may choose for an answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ChatOptions {
    /// How the conversation becomes one text; see [`ModelText::format`](super::ModelText::format).
    pub format: Option<ChatFormat>,
    /// What the caller chooses for chat templates.
    pub template: TemplateOptions,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Longest answer in tokens.
    pub max_tokens: u32,
    /// Texts that end the answer. They are not part of it.
    pub stop: Vec<String>,
}
