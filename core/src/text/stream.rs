//! Turns tokens into text one by one, and holds back incomplete characters.

use std::sync::Arc;

use super::bytes::Pieces;

/// Decodes tokens one at a time. Made by [`Tokenizer::stream`](super::tokenizer::Tokenizer::stream).
///
/// The texts that [`push`](TextStream::push) and [`finish`](TextStream::finish) return, joined, equal what
/// [`Tokenizer::decode`](super::tokenizer::Tokenizer::decode) gives for the same ids. At most three bytes are held back, and the
/// time for a token depends only on its own length.
pub struct TextStream {
    pieces: Arc<Pieces>,
    skip_special: bool,
    /// The first bytes of an incomplete character.
    held: Vec<u8>,
}

impl TextStream {
    pub(super) fn new(pieces: Arc<Pieces>, skip_special: bool) -> TextStream {
        TextStream { pieces, skip_special, held: Vec::new() }
    }

    pub(super) fn is_special(&self, id: u32) -> bool {
        self.pieces.is_special(id)
    }

    /// The text that `id` completes. It is empty while a character is incomplete, and for an id without a token.
    pub fn push(&mut self, id: u32) -> String {
        self.held.extend_from_slice(self.pieces.get(id, self.skip_special));
        let mut text = String::new();
        let mut rest = self.held.as_slice();
        while let Err(e) = std::str::from_utf8(rest) {
            let (valid, bad) = rest.split_at(e.valid_up_to());
            text.push_str(std::str::from_utf8(valid).unwrap_or_default());
            rest = bad;
            // Without an error length, these bytes can still become a character.
            let Some(length) = e.error_len() else { break };
            text.push(char::REPLACEMENT_CHARACTER);
            rest = &bad[length..];
        }
        if let Ok(valid) = std::str::from_utf8(rest) {
            text.push_str(valid);
            rest = &[];
        }
        let done = self.held.len() - rest.len();
        self.held.drain(..done);
        text
    }

    /// Ends the text. Returns U+FFFD if the last character is incomplete, else nothing. The stream can then be used for
    /// another text.
    pub fn finish(&mut self) -> String {
        let text = String::from_utf8_lossy(&self.held).into_owned();
        self.held.clear();
        text
    }
}

impl std::fmt::Debug for TextStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TextStream").field("held", &self.held).finish_non_exhaustive()
    }
}
