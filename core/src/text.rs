//! Text to token ids and back: byte-level BPE from a `tokenizer.json` (spec section 5).
//!
//! The `tokenizers` crate does only the merges. The other steps are done here, because that crate panics on crafted
//! files (huggingface/tokenizers #2094, #2198, #2151), goes on silently when a split pattern fails, and cannot decode a
//! stream token by token.

mod added;
mod answer;
mod bytes;
mod chat;
mod date;
mod file;
mod jinja;
mod message;
mod parts;
mod split;
mod stop;
mod stream;
mod template;
mod tokenizer;
mod wrong;

pub use answer::{End, Until, Writer};
pub(crate) use bytes::BYTE_CHARS;
pub use date::LocalTime;
pub use message::{Message, Role, USER_AGAIN, instruct};
pub use stop::StopMatcher;
pub use stream::TextStream;
pub use template::{ChatFiles, ChatTemplate, TemplateOptions};
pub use tokenizer::Tokenizer;
