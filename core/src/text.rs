//! Text to token ids and back: byte-level BPE from a `tokenizer.json` (spec section 5).
//!
//! The merges come from the `tokenizers` crate. What stands around them is here, because that
//! crate panics on crafted files (huggingface/tokenizers #2094, #2198, #2151), goes on silently
//! when a split pattern fails, and cannot decode a stream token by token.

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
mod wrong;

use std::{borrow::Cow, collections::HashMap, sync::Arc};

use tokenizers::{Model as _, NormalizedString, models::bpe::BPE};

use crate::{Error, Result};
use added::{Added, Piece};
pub use answer::{End, Until, Writer};
pub(crate) use bytes::BYTE_CHARS;
use bytes::Pieces;
pub use date::LocalTime;
pub use message::{Message, Role, USER_AGAIN, instruct};
use parts::Form;
use split::{Budget, Splitter};
pub use stop::StopMatcher;
pub use stream::TextStream;
pub use template::{ChatFiles, ChatTemplate, TemplateOptions};

/// Longest text that [`Tokenizer::encode`] takes, in bytes: it bounds memory and time.
const MAX_TEXT: usize = 2 << 20;

/// A byte-level BPE tokenizer, read from a Hugging Face `tokenizer.json` (spec section 5).
///
/// Read are: a BPE model that knows every byte, split patterns, NFC and its relatives,
/// template post-processors and added tokens. Any other component is refused by name.
/// `truncation` and `padding` are ignored, as transformers does for a single prompt.
pub struct Tokenizer {
    bpe: BPE,
    forms: Vec<Form>,
    splitter: Splitter,
    /// Added tokens that text may spell, matched before and after normalisation.
    raw: Added,
    normalized: Added,
    /// Special tokens, which only a chat template may spell.
    special: Added,
    /// What the post-processor puts around a text.
    prefix: Vec<u32>,
    suffix: Vec<u32>,
    /// Texts of the added tokens, special or not, and their ids.
    added: HashMap<u32, String>,
    added_ids: HashMap<String, u32>,
    pieces: Arc<Pieces>,
}

impl Tokenizer {
    /// The ids of `text`.
    ///
    /// With `add_special`, the file's post-processor adds its tokens (`<s>`, where it says so).
    /// Special tokens that `text` spells out are plain text: no text can forge a control id.
    ///
    /// # Errors
    ///
    /// [`Error::Prompt`] if `text` is longer than 2 MiB, or the file's split pattern backtracks
    /// more than a fixed budget allows.
    pub fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>> {
        if text.len() > MAX_TEXT {
            return Err(Error::Prompt {
                why: format!("{} bytes of text are more than the {MAX_TEXT} that fit in one prompt", text.len()),
                next: "Shorten the text, or encode it in parts",
            });
        }
        let mut ids = if add_special { self.prefix.clone() } else { Vec::new() };
        let mut budget = Budget::new(text.len());
        self.raw.cut(text, |part| match part {
            Piece::Token(id) => {
                ids.push(id);
                Ok(())
            }
            Piece::Text(text) => self.normalized.cut(&self.normalize(text)?, |part| match part {
                Piece::Token(id) => {
                    ids.push(id);
                    Ok(())
                }
                Piece::Text(text) => self.encode_plain(text, &mut budget, &mut ids),
            }),
        })?;
        if add_special {
            ids.extend(&self.suffix);
        }
        Ok(ids)
    }

    /// What the file's post-processor puts in front of a text (`<s>`, where it says so).
    pub fn prefix(&self) -> &[u32] {
        &self.prefix
    }

    /// The ids of a text in which special tokens stand for themselves: a chat template's own text, never a user's.
    /// The post-processor adds nothing.
    ///
    /// # Errors
    ///
    /// As [`Tokenizer::encode`].
    pub fn encode_trusted(&self, text: &str) -> Result<Vec<u32>> {
        self.encode_marked(text, str::to_owned)
    }

    /// As [`Tokenizer::encode_trusted`], of a text in which marks stand for characters that are no part of a special
    /// token; `unmarked` takes them back. Between two special tokens, the text is encoded as one.
    fn encode_marked(&self, text: &str, unmarked: impl Fn(&str) -> String) -> Result<Vec<u32>> {
        let mut ids = Vec::new();
        self.special.cut(text, |part| {
            match part {
                Piece::Token(id) => ids.push(id),
                Piece::Text(text) => ids.extend(self.encode(&unmarked(text), false)?),
            }
            Ok(())
        })?;
        Ok(ids)
    }

    /// Every added token, special or not: its id, and how text spells it.
    pub(crate) fn added_tokens(&self) -> impl Iterator<Item = (u32, &str)> {
        self.added.iter().map(|(&id, text)| (id, text.as_str()))
    }

    /// The special tokens as text spells them.
    fn special_texts(&self) -> impl Iterator<Item = &str> {
        self.added.iter().filter(|(id, _)| self.is_special(**id)).map(|(_, text)| text.as_str())
    }

    /// Text without added tokens, already normalised.
    fn encode_plain(&self, text: &str, budget: &mut Budget, ids: &mut Vec<u32>) -> Result<()> {
        let mut word = String::new();
        self.splitter.split(text, budget, |piece| {
            word.clear();
            word.extend(piece.bytes().map(|b| BYTE_CHARS[usize::from(b)]));
            let tokens = self.bpe.tokenize(&word).map_err(|e| wrong::tokenizer(e.to_string()))?;
            ids.extend(tokens.iter().map(|t| t.id));
            Ok(())
        })
    }

    fn normalize<'t>(&self, text: &'t str) -> Result<Cow<'t, str>> {
        // Every form leaves ASCII as it is.
        if self.forms.is_empty() || text.is_ascii() {
            return Ok(Cow::Borrowed(text));
        }
        parts::normalize(&self.forms, text).map(|n: NormalizedString| Cow::Owned(n.get().to_owned()))
    }

    /// The text of `ids`. Bytes that are not UTF-8 become U+FFFD. With `skip_special`, special
    /// tokens are left out.
    ///
    /// An id without a token has no text, as in tokenizers and transformers: many models have more rows in their
    /// embedding than their tokenizer has tokens (Qwen3: 151,936 and 151,669), and any of these rows can be chosen.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> String {
        let bytes: Vec<u8> = ids.iter().flat_map(|&id| self.pieces.get(id, skip_special)).copied().collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// A decoder for tokens as they come. Its whole output equals [`Tokenizer::decode`].
    pub fn stream(&self, skip_special: bool) -> TextStream {
        TextStream::new(self.pieces.clone(), skip_special)
    }

    /// One more than the largest id: the fewest rows that an embedding needs.
    pub fn vocab_size(&self) -> usize {
        self.pieces.len()
    }

    /// The token of an id as the file spells it (`Ġthe`, `</s>`), or `None` for an unused id.
    pub fn token(&self, id: u32) -> Option<String> {
        self.added.get(&id).cloned().or_else(|| self.bpe.id_to_token(id))
    }

    /// The id of a token as the file spells it (`Ġthe`, `</s>`).
    pub fn id(&self, token: &str) -> Option<u32> {
        self.added_ids.get(token).copied().or_else(|| self.bpe.token_to_id(token))
    }

    /// Whether an id is a special (control) token.
    pub fn is_special(&self, id: u32) -> bool {
        self.pieces.is_special(id)
    }
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokenizer").field("vocab_size", &self.vocab_size()).finish_non_exhaustive()
    }
}
