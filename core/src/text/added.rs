//! Added tokens that a text may spell out: `<think>` any text, `<|im_start|>` a chat template only.

use aho_corasick::{AhoCorasick, MatchKind};

use super::wrong::tokenizer as bad;
use crate::Result;

/// A stretch of a text.
pub(super) enum Piece<'t> {
    Token(u32),
    Text(&'t str),
}

/// White space that belongs to a token where a text spells it.
#[derive(Clone, Copy, Default)]
pub(super) struct Strip {
    pub(super) left: bool,
    pub(super) right: bool,
}

/// A set of added tokens; the leftmost and then the longest match wins, as upstream.
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

    /// Calls `f` with the parts of `text` in order; empty texts are left out.
    pub(super) fn cut<'t>(&self, text: &'t str, mut f: impl FnMut(Piece<'t>) -> Result<()>) -> Result<()> {
        let mut done = 0;
        for found in self.matcher.iter().flat_map(|m| m.find_iter(text)) {
            let (id, strip) = self.tokens[found.pattern().as_usize()];
            // The space in front may already belong to the token before.
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
