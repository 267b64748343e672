//! The turn of a conversation: messages in, events out.
//!
//! [`ModelText`] is the text side of a model: how messages become tokens, and what ends an answer. Any number of
//! conversations can share one. [`Chat`] is one conversation in one slot of an engine. It keeps the tokens that the
//! model has read, so that each turn reads only what is new.

mod generator;
mod options;
mod text;

pub use generator::Generator;
pub use options::{ChatFormat, ChatOptions};
pub use text::{ModelText, TextFiles};

use crate::engine::{Engine, Event, Transcript};
use crate::text::{End, Message, Role};
use crate::{Error, Result};
use std::ops::ControlFlow;

/// What happens during a turn, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChatEvent {
    /// The model has read `done` of `total` tokens of the prompt.
    Prefill {
        /// Tokens that the model has read in this turn.
        done: usize,
        /// Tokens to read in this turn. Tokens that an earlier turn has read are not among them.
        total: usize,
    },
    /// The next token of the answer. The token that ends an answer is not reported.
    Token {
        /// The token.
        id: u32,
        /// Text that can be shown now. It is empty while a character is incomplete, or while the text may be the
        /// beginning of a stop text.
        text: String,
    },
    /// The text that was held back, once the answer is over. Never empty.
    Rest(String),
}

/// The model's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The text.
    pub text: String,
    /// The tokens of the text, without the one that ended it.
    pub ids: Vec<u32>,
    /// What ended the answer.
    pub end: End,
    /// Tokens of the whole prompt.
    pub prompt_tokens: usize,
    /// How many of the prompt's tokens were not read again, because an earlier turn had read them.
    pub cached_tokens: usize,
}

/// One conversation in one slot of an engine.
///
/// In each turn, the chat format writes the whole conversation as one text, which becomes tokens. Tokens at its
/// beginning that the model has read already are not read again, as far as the [`Transcript`] reaches. So an answer
/// becomes part of the conversation in the way in which the format writes it. That may differ from the tokens that the
/// model chose: a chat template may leave out what the model thought, or the same text may be cut into other tokens.
#[derive(Debug, Default)]
pub struct Chat {
    slot: u32,
    /// The messages that every conversation begins with.
    beginning: Vec<Message>,
    messages: Vec<Message>,
    transcript: Transcript,
}

impl Chat {
    /// A conversation that begins with these messages, such as a system message. No other conversation may use the
    /// slot.
    pub fn new(slot: u32, beginning: Vec<Message>) -> Chat {
        Chat { slot, messages: beginning.clone(), beginning, transcript: Transcript::default() }
    }

    /// The messages so far.
    pub fn messages(&self) -> &[Message] {
        &self.messages
    }

    /// Whether the model has read anything yet.
    pub fn has_begun(&self) -> bool {
        !self.transcript.read().is_empty()
    }

    /// Begins again: keeps only the messages that the conversation began with.
    pub fn reset(&mut self, engine: &mut Engine) {
        self.messages.clone_from(&self.beginning);
        self.transcript.clear(engine);
    }

    /// Adds the user's message and answers it. In the format [`ChatFormat::Text`] the model continues right after the
    /// tokens that it has read, and with an empty `content` it continues its own text.
    ///
    /// # Errors
    /// [`Error::Prompt`] if the turn does not fit into the context. The conversation is then unchanged. Others as
    /// [`Chat::answer`].
    pub async fn say(
        &mut self,
        engine: &mut Engine,
        text: &ModelText,
        content: &str,
        options: &ChatOptions,
        on_event: &mut dyn FnMut(ChatEvent) -> ControlFlow<()>,
    ) -> Result<Answer> {
        let format = text.format(options)?;
        let mut messages = self.messages.clone();
        let ids = if format == ChatFormat::Text {
            let last = messages.last().map_or("", |message| message.content.as_str());
            let new = text.continued(last, content, !self.has_begun())?;
            [self.transcript.read(), &new].concat()
        } else {
            let new = Message::new(Role::User, content);
            text.encode(&[&messages[..], &[new]].concat(), options)?
        };
        let context = engine.context() as usize;
        if ids.len() >= context {
            let (why, next) = match self.has_begun() {
                true => (
                    format!("the conversation is full: with this turn it has {} tokens, of {context}", ids.len()),
                    "Begin a new one (in `nemoflash chat`: /reset), or allow a longer context (--context N)",
                ),
                false => (
                    format!("the turn does not fit: it has {} tokens, of {context}", ids.len()),
                    "Shorten it, or allow a longer context (--context N)",
                ),
            };
            return Err(Error::Prompt { why, next });
        }
        if !content.is_empty() || format != ChatFormat::Text {
            messages.push(Message::new(Role::User, content));
        }
        self.run(engine, text, messages, &ids, options, on_event).await
    }

    /// Answers a conversation that the caller gives from its beginning. The beginning that it shares with the previous
    /// conversation is not read again. It may also share nothing.
    ///
    /// `on_event` can stop the answer with `Break`. The answer then ends as [`End::Interrupted`].
    ///
    /// # Errors
    /// As [`ModelText::encode`], [`Engine::answer`] and [`Writer::new`](crate::Writer::new).
    pub async fn answer(
        &mut self,
        engine: &mut Engine,
        text: &ModelText,
        messages: Vec<Message>,
        options: &ChatOptions,
        on_event: &mut dyn FnMut(ChatEvent) -> ControlFlow<()>,
    ) -> Result<Answer> {
        let ids = text.encode(&messages, options)?;
        self.run(engine, text, messages, &ids, options, on_event).await
    }

    async fn run(
        &mut self,
        engine: &mut Engine,
        text: &ModelText,
        messages: Vec<Message>,
        ids: &[u32],
        options: &ChatOptions,
        on_event: &mut dyn FnMut(ChatEvent) -> ControlFlow<()>,
    ) -> Result<Answer> {
        let mut writer = text.writer(engine.config(), options)?;
        let (mut shown, mut new_tokens) = (String::new(), ids.len());
        let mut take = |event| {
            let told = match event {
                Event::Prefill { done, total } => {
                    new_tokens = total;
                    on_event(ChatEvent::Prefill { done, total })
                }
                Event::Token(id) => {
                    let text = writer.push(id);
                    shown += &text;
                    match writer.end() {
                        Some(End::Eos) => ControlFlow::Continue(()),
                        _ => on_event(ChatEvent::Token { id, text }),
                    }
                }
            };
            if told.is_break() {
                writer.interrupt();
            }
            if writer.end().is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        engine
            .answer(
                self.slot,
                &mut self.transcript,
                &options.sampling(text.usual()),
                ids,
                options.max_tokens,
                &mut take,
            )
            .await?;
        let (rest, answer, end) = writer.finish();
        shown += &rest;
        if !rest.is_empty() {
            // The answer is over, so there is nothing left to stop.
            let _ = on_event(ChatEvent::Rest(rest));
        }
        // A stop text is not part of the conversation. It may begin inside a token, so the text is encoded again.
        let kept = if end == End::Stop { text.tokenizer().encode(&shown, false)? } else { answer.clone() };
        self.transcript.set_read([ids, &kept].concat());
        self.messages = messages;
        self.messages.push(Message::new(Role::Assistant, shown.as_str()));
        let cached_tokens = ids.len() - new_tokens;
        Ok(Answer { text: shown, ids: answer, end, prompt_tokens: ids.len(), cached_tokens })
    }
}
