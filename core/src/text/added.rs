//! Added tokens that a text may spell out (`<think>`). Special ones are never among them.

use aho_corasick::{AhoCorasick, MatchKind};

use super::file::bad;
use crate::Result;

/// A stretch of a text.
pub(super) enum Part<'t> {
    Token(u32),
    Text(&'t str),
}

/// A set of added tokens; the leftmost and then the longest match wins, as upstream.
pub(super) struct Added {
    matcher: Option<AhoCorasick>,
    ids: Vec<u32>,
}

impl Added {
    pub(super) fn new(tokens: &[(String, u32)]) -> Result<Added> {
        let matcher = match tokens {
            [] => None,
            _ => Some(
                AhoCorasick::builder()
                    .match_kind(MatchKind::LeftmostLongest)
                    .build(tokens.iter().map(|(content, _)| content))
                    .map_err(|e| bad(format!("added_tokens: {e}")))?,
            ),
        };
        Ok(Added { matcher, ids: tokens.iter().map(|&(_, id)| id).collect() })
    }

    /// Calls `f` with the parts of `text` in order; empty texts are left out.
    pub(super) fn cut<'t>(&self, text: &'t str, mut f: impl FnMut(Part<'t>) -> Result<()>) -> Result<()> {
        let mut done = 0;
        for found in self.matcher.iter().flat_map(|m| m.find_iter(text)) {
            if done < found.start() {
                f(Part::Text(&text[done..found.start()]))?;
            }
            f(Part::Token(self.ids[found.pattern().as_usize()]))?;
            done = found.end();
        }
        if done < text.len() { f(Part::Text(&text[done..])) } else { Ok(()) }
    }
}
