//! The options of an answer.

use crate::defaults;
use crate::sampling::Sampling;
use crate::text::TemplateOptions;
use serde::{Deserialize, Serialize};

/// How a conversation becomes one text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum ChatFormat {
    /// Plain text: the messages one after the other. The model continues them.
    Text,
    /// Questions and answers: `User: ...`, `Assistant:`.
    Instruct,
    /// Questions and answers in the model's own chat template.
    Template,
}

impl ChatFormat {
    /// The format for a model without a chat template: questions and answers if its name contains "instruct", otherwise
    /// plain text.
    pub fn by_name(name: &str) -> ChatFormat {
        match name.to_lowercase().contains("instruct") {
            true => ChatFormat::Instruct,
            false => ChatFormat::Text,
        }
    }
}

/// The options of an answer. By default, every choice is left to the model's files and to [`defaults`].
#[derive(Clone, Debug, PartialEq)]
pub struct ChatOptions {
    /// How the conversation becomes one text. For `None`, see [`ModelText::format`](super::ModelText::format).
    pub format: Option<ChatFormat>,
    /// Options of chat templates.
    pub template: TemplateOptions,
    /// Longest answer in tokens.
    pub max_tokens: u32,
    /// As [`Sampling::temperature`]. Here and in the next four fields, `None` stands for the value in the model's
    /// `generation_config.json`, or else in [`defaults::SAMPLING`].
    pub temperature: Option<f32>,
    /// As [`Sampling::top_k`].
    pub top_k: Option<u32>,
    /// As [`Sampling::top_p`].
    pub top_p: Option<f32>,
    /// As [`Sampling::min_p`].
    pub min_p: Option<f32>,
    /// As [`Sampling::repetition_penalty`].
    pub repetition_penalty: Option<f32>,
    /// The same seed, conversation, model and device give the same answer. The default is 0. For different answers,
    /// choose a random seed.
    pub seed: u64,
    /// Texts that end the answer. They are not part of it.
    pub stop: Vec<String>,
}

impl Default for ChatOptions {
    fn default() -> Self {
        ChatOptions {
            format: None,
            template: TemplateOptions::default(),
            max_tokens: defaults::MAX_TOKENS,
            temperature: None,
            top_k: None,
            top_p: None,
            min_p: None,
            repetition_penalty: None,
            seed: 0,
            stop: vec![],
        }
    }
}

impl ChatOptions {
    /// The settings for choosing tokens. `usual` has the values that the caller leaves open.
    pub fn sampling(&self, usual: &Sampling) -> Sampling {
        Sampling {
            temperature: self.temperature.unwrap_or(usual.temperature),
            top_k: self.top_k.unwrap_or(usual.top_k),
            top_p: self.top_p.unwrap_or(usual.top_p),
            min_p: self.min_p.unwrap_or(usual.min_p),
            repetition_penalty: self.repetition_penalty.unwrap_or(usual.repetition_penalty),
            seed: self.seed,
        }
    }
}
