//! Errors about tokenizers and templates. Their messages are cut to a bounded length, because texts from a file may be
//! long.

use crate::Error;

/// An [`Error::Tokenizer`].
pub(super) fn tokenizer(why: impl Into<String>) -> Error {
    Error::Tokenizer { why: bounded(why.into()) }
}

/// An [`Error::Template`].
pub(super) fn template(why: impl Into<String>) -> Error {
    Error::Template { why: bounded(why.into()) }
}

fn bounded(mut why: String) -> String {
    if let Some((end, _)) = why.char_indices().nth(400) {
        why.truncate(end);
        why.push('…');
    }
    why
}
