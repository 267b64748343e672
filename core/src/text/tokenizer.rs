//! A tokenizer at work: text to ids and back. `file` makes it from a `tokenizer.json`.

use super::added::{Added, Piece};
use super::bytes::{BYTE_CHARS, Pieces};
use super::parts::{self, Form};
use super::split::{Budget, Splitter};
use super::stream::TextStream;
use super::wrong;
use crate::{Error, Result};
use std::{borrow::Cow, collections::HashMap, sync::Arc};
use tokenizers::{Model as _, NormalizedString, models::bpe::BPE};

/// Longest text that [`Tokenizer::encode`] takes, in bytes. It bounds memory and time.
const MAX_TEXT: usize = 2 << 20;

/// A byte-level BPE tokenizer, read from a Hugging Face `tokenizer.json` (spec section 5).
///
/// It supports a BPE model that has a token for every byte, split patterns, Unicode normalisation forms (NFC and
/// others), template post-processors and added tokens. Any other component is an error that names it. `truncation` and
/// `padding` are ignored, as transformers does for a single prompt.
pub struct Tokenizer {
    pub(super) bpe: BPE,
    pub(super) forms: Vec<Form>,
    pub(super) splitter: Splitter,
    /// Added tokens that a text may spell. `raw` is matched before normalisation, `normalized` after it.
    pub(super) raw: Added,
    pub(super) normalized: Added,
    /// Special tokens, which only a chat template may spell.
    pub(super) special: Added,
    /// Ids that the post-processor puts before and after a text.
    pub(super) prefix: Vec<u32>,
    pub(super) suffix: Vec<u32>,
    /// Texts and ids of the added tokens, special or not.
    pub(super) added: HashMap<u32, String>,
    pub(super) added_ids: HashMap<String, u32>,
    pub(super) pieces: Arc<Pieces>,
}

impl Tokenizer {
    /// The ids of `text`.
    ///
    /// With `add_special`, the post-processor of the file adds its tokens, such as `<s>`. Special tokens that `text`
    /// spells are plain text, so no text can forge a control token.
    ///
    /// # Errors
    ///
    /// [`Error::Prompt`] if `text` is longer than 2 MiB, or if the file's split pattern backtracks more than a fixed
    /// budget allows.
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

    /// The ids that the file's post-processor puts in front of a text, such as that of `<s>`.
    pub fn prefix(&self) -> &[u32] {
        &self.prefix
    }

    /// The ids of a text in which special tokens are recognised. Use it only for text that a chat template wrote, never
    /// for text of a user. The post-processor adds nothing.
    ///
    /// # Errors
    ///
    /// As [`Tokenizer::encode`].
    pub fn encode_trusted(&self, text: &str) -> Result<Vec<u32>> {
        self.encode_marked(text, str::to_owned)
    }

    /// As [`Tokenizer::encode_trusted`], but characters that cannot belong to a special token are replaced by marks in
    /// `text`. `unmarked` puts them back. The text between two special tokens is encoded as one.
    pub(super) fn encode_marked(&self, text: &str, unmarked: impl Fn(&str) -> String) -> Result<Vec<u32>> {
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

    /// Every added token, special or not: its id and its text.
    pub(crate) fn added_tokens(&self) -> impl Iterator<Item = (u32, &str)> {
        self.added.iter().map(|(&id, text)| (id, text.as_str()))
    }

    /// The texts of the special tokens.
    pub(super) fn special_texts(&self) -> impl Iterator<Item = &str> {
        self.added.iter().filter(|(id, _)| self.is_special(**id)).map(|(_, text)| text.as_str())
    }

    /// Appends the ids of a text without added tokens, which is normalised already.
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
        // No normalisation form changes ASCII.
        if self.forms.is_empty() || text.is_ascii() {
            return Ok(Cow::Borrowed(text));
        }
        parts::normalize(&self.forms, text).map(|n: NormalizedString| Cow::Owned(n.get().to_owned()))
    }

    /// The text of `ids`. Bytes that are not UTF-8 become U+FFFD. With `skip_special`, special tokens are left out.
    ///
    /// An id without a token has no text, as in tokenizers and transformers. Many models have more rows in their
    /// embedding than their tokenizer has tokens (Qwen3: 151,936 and 151,669), and the model can choose any of these
    /// rows.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> String {
        let bytes: Vec<u8> = ids.iter().flat_map(|&id| self.pieces.get(id, skip_special)).copied().collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// A decoder that takes one token at a time. Its whole output equals [`Tokenizer::decode`].
    pub fn stream(&self, skip_special: bool) -> TextStream {
        TextStream::new(self.pieces.clone(), skip_special)
    }

    /// The largest id plus 1. An embedding needs at least as many rows.
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
