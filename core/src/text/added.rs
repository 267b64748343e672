//! Added tokens that a text may spell. Some may be spelled by any text (`<think>`), others only by a chat template
//! (`<|im_start|>`).

use aho_corasick::{AhoCorasick, MatchKind};

use super::wrong::tokenizer as bad;
use crate::Result;

/// A piece of a text: an added token, or text between added tokens.
pub(super) enum Piece<'t> {
    Token(u32),
    Text(&'t str),
}

/// Whether white space on a side of the token is part of it.
#[derive(Clone, Copy, Default)]
pub(super) struct Strip {
    pub(super) left: bool,
    pub(super) right: bool,
}

/// A set of added tokens. The leftmost match wins, then the longest one, as in the `tokenizers` crate.
pub(super) struct Added {
    matcher: Option<AhoCorasick>,
    tokens: Vec<(u32, Strip)>,
}

impl Added {
    pub(super) fn new(tokens: &[(String, u32, Strip)]) -> Result<Added> {
        let matcher = match tokens {
            [] => None,
            _ => Some(
                AhoCorasick::builder()
                    .match_kind(MatchKind::LeftmostLongest)
                    .build(tokens.iter().map(|(content, ..)| content))
                    .map_err(|e| bad(format!("added_tokens: {e}")))?,
            ),
        };
        Ok(Added { matcher, tokens: tokens.iter().map(|&(_, id, strip)| (id, strip)).collect() })
    }

    /// Calls `f` with the pieces of `text` in order. Empty texts are left out.
    pub(super) fn cut<'t>(&self, text: &'t str, mut f: impl FnMut(Piece<'t>) -> Result<()>) -> Result<()> {
        let mut done = 0;
        for found in self.matcher.iter().flat_map(|m| m.find_iter(text)) {
            let (id, strip) = self.tokens[found.pattern().as_usize()];
            // The space in front may already belong to the previous token.
            let mut before = text.get(done..found.start()).unwrap_or_default();
            if strip.left {
                before = before.trim_end();
            }
            if !before.is_empty() {
                f(Piece::Text(before))?;
            }
            f(Piece::Token(id))?;
            done = found.end();
            if strip.right {
                done = text.len() - text[done..].trim_start().len();
            }
        }
        if done < text.len() { f(Piece::Text(&text[done..])) } else { Ok(()) }
    }
}
