//! Cuts the tags of a template into words and signs, in the same way as minijinja.

use crate::Result;
use crate::text::wrong::template as bad;

/// The most tokens of a tag. minijinja compiles operators by recursion: 2,000 operators in one tag overflow a stack of
/// 1 MiB.
const MAX_TOKENS: usize = 400;

/// A token of a tag.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Token<'s> {
    /// A name, a keyword or a number.
    Word(&'s str),
    /// A text in quotes.
    Quoted(&'s str),
    /// An operator or a bracket.
    Sign(&'s str),
}
use Token::{Quoted, Sign, Word};

/// The tokens between `{%` or `{{` and the end of the tag.
pub(super) struct Tag<'s> {
    pub(super) tokens: Vec<Token<'s>>,
    /// Where each token begins and ends.
    pub(super) places: Vec<(usize, usize)>,
    /// Where the closing `-%}` begins, and where the tag ends.
    pub(super) close: usize,
    pub(super) end: usize,
}

impl<'s> Tag<'s> {
    /// Reads the tag that begins at `inside`, after its `{%` or `{{`, and ends with `closing`.
    ///
    /// # Errors
    ///
    /// [`Error::Template`](crate::Error::Template) if the tag does not end, or is too long.
    pub(super) fn read(source: &'s str, inside: usize, closing: &str) -> Result<Tag<'s>> {
        let mut at = inside + usize::from(matches!(source.as_bytes().get(inside), Some(b'-' | b'+')));
        let mut tag = Tag { tokens: Vec::new(), places: Vec::new(), close: 0, end: 0 };
        let mut depth = 0usize;
        loop {
            at += source[at..].len() - source[at..].trim_ascii_start().len();
            let rest = &source[at..];
            let Some(first) = rest.chars().next() else { return Err(bad("a tag is not closed")) };
            let mark = usize::from(matches!(first, '-' | '+'));
            if depth == 0 && rest[mark..].starts_with(closing) {
                (tag.close, tag.end) = (at, at + mark + closing.len());
                return Ok(tag);
            }
            if tag.tokens.len() == MAX_TOKENS {
                return Err(bad(format!("a tag has more than {MAX_TOKENS} words and signs")));
            }
            let (token, length) = token(rest, first)?;
            match token {
                Sign("(" | "[" | "{") => depth += 1,
                Sign(")" | "]" | "}") => {
                    depth = depth.checked_sub(1).ok_or_else(|| bad(format!("a `{first}` opens nothing")))?;
                }
                _ => {}
            }
            tag.tokens.push(token);
            tag.places.push((at, at + length));
            at += length;
        }
    }

    /// The index of the last token of the operand that begins at token `at`. An operand is a name, a number, a text or
    /// brackets, with signs before it, and with attributes, arguments and filters after it.
    pub(super) fn operand_end(&self, mut at: usize) -> Option<usize> {
        while matches!(self.tokens.get(at)?, Sign("-" | "+") | Word("not")) {
            at += 1;
        }
        let mut last = self.part_end(at)?;
        loop {
            let next = match self.tokens.get(last + 1) {
                Some(Quoted(_)) if matches!(self.tokens[last], Quoted(_)) => last + 1,
                Some(Sign("." | "|")) if matches!(self.tokens.get(last + 2), Some(Word(_))) => last + 2,
                Some(Sign("(" | "[")) => self.part_end(last + 1)?,
                _ => return Some(last),
            };
            last = next;
        }
    }

    /// The index of the last token of a name, a number, a text or brackets.
    fn part_end(&self, at: usize) -> Option<usize> {
        match self.tokens.get(at)? {
            Word(_) | Quoted(_) => Some(at),
            Sign("(" | "[" | "{") => {
                let mut depth = 0;
                let closes = self.depths(at).position(|after| {
                    depth = after;
                    depth == 0
                });
                closes.map(|length| at + length)
            }
            Sign(_) => None,
        }
    }

    /// How many brackets are open after each token from `at` on.
    pub(super) fn depths(&self, at: usize) -> impl Iterator<Item = usize> {
        self.tokens.get(at..).unwrap_or_default().iter().scan(0usize, |depth, token| {
            match token {
                Sign("(" | "[" | "{") => *depth += 1,
                Sign(")" | "]" | "}") => *depth = depth.saturating_sub(1),
                _ => {}
            }
            Some(*depth)
        })
    }
}

/// The first token of `rest`, and its length in bytes.
fn token(rest: &str, first: char) -> Result<(Token<'_>, usize)> {
    let word = |c: char| c.is_alphanumeric() || c == '_' || !c.is_ascii();
    let length = |end: Option<usize>| end.unwrap_or(rest.len());
    Ok(match first {
        '"' | '\'' => {
            let mut escaped = false;
            let end = rest[1..].find(|c| {
                let ends = c == first && !escaped;
                escaped = c == '\\' && !escaped;
                ends
            });
            let end = end.ok_or_else(|| bad("a quoted text is not closed"))?;
            (Quoted(&rest[1..=end]), end + 2)
        }
        _ if word(first) => {
            let mut end = length(rest.find(|c| !word(c)));
            // `1e-5` is one number.
            let digits = first.is_ascii_digit() && rest[..end].ends_with(['e', 'E']);
            let mut behind = rest[end..].chars();
            if digits && matches!(behind.next(), Some('-' | '+')) && behind.next().is_some_and(|c| c.is_ascii_digit()) {
                end += 1 + length(rest[end + 1..].find(|c| !word(c))).min(rest.len() - end - 1);
            }
            (Word(&rest[..end]), end)
        }
        _ => {
            let double = ["//", "**", "==", "!=", ">=", "<="].into_iter().any(|sign| rest.starts_with(sign));
            let end = if double { 2 } else { first.len_utf8() };
            (Sign(&rest[..end]), end)
        }
    })
}
