//! What a chat template may say, checked and completed before minijinja reads it.
//!
//! minijinja's fuel pays for instructions and for data that lies flat. It does not pay for what a value holds inside
//! when that is printed or compared, nor for the stack: a list that holds itself overflows it, a list that holds one
//! list twice, forty times over, takes for ever, and so does `x + x`. Nor does it bound how deep an expression nests
//! when it is compiled. So here
//!
//! - tags are short, which bounds the expressions;
//! - whatever is bound to a name goes through the filter [`KEEP`], which makes it a tree of bounded size: of two
//!   names, one cannot hold the other any more, and nothing grows from one tag to the next unpaid.
//!
//! Each of these has a template in the tests that shows what happens otherwise.

use super::template::bad;
use crate::Result;

/// The filter behind every name that a template binds.
pub(super) const KEEP: &str = "_keep";

/// Longest template in bytes; the longest in use have about 40,000.
const MAX_SOURCE: usize = 128 << 10;
/// Longest tag in tokens. minijinja compiles operators by recursion: of 2,000 in one tag, a stack of 1 MiB overflows.
const MAX_TOKENS: usize = 400;
/// Most `elif`, which nest likewise.
const MAX_ELIF: usize = 200;

/// A template that may be compiled.
pub(super) struct Guarded {
    pub(super) source: String,
    /// Texts in quotes, without escapes.
    pub(super) quoted: Vec<String>,
}

#[derive(Clone, Copy, PartialEq)]
enum Token<'s> {
    /// A name, a keyword or a number.
    Word(&'s str),
    Quoted(&'s str),
    Sign(&'s str),
}
use Token::{Quoted, Sign, Word};

struct Tag<'s> {
    /// Tokens, and where each begins.
    tokens: Vec<(Token<'s>, usize)>,
    /// Where the closing `-%}` begins, and where the tag ends.
    close: usize,
    end: usize,
}

/// Checks a template, and puts [`KEEP`] where names are bound.
pub(super) fn guard(source: &str) -> Result<Guarded> {
    if source.len() > MAX_SOURCE {
        return Err(bad(format!("it has {} bytes, more than {MAX_SOURCE}", source.len())));
    }
    let mut guarded = Guarded { source: String::with_capacity(source.len() + source.len() / 4), quoted: Vec::new() };
    let (mut done, mut at, mut elifs) = (0, 0, 0);
    while let Some(found) = source[at..].find('{') {
        let start = at + found;
        let closing = match source.as_bytes().get(start + 1) {
            Some(b'#') => {
                // Without an end, minijinja says so.
                at = source[start..].find("#}").map_or(source.len(), |length| start + length + 2);
                continue;
            }
            Some(b'%') => "%}",
            Some(b'{') => "}}",
            _ => {
                at = start + 1;
                continue;
            }
        };
        let tag = tag(source, start + 2, closing)?;
        at = tag.end;
        let tokens: Vec<Token> = tag.tokens.iter().map(|(token, _)| *token).collect();
        guarded.quoted.extend(tokens.iter().filter_map(|token| match token {
            Quoted(text) if !text.contains('\\') => Some((*text).to_owned()),
            _ => None,
        }));
        operators(&tokens)?;
        if closing == "}}" {
            continue;
        }
        let Some(&(Word(statement), place)) = tag.tokens.first() else { continue };
        let (mut names, mut value) = (Vec::new(), None);
        match statement {
            "if" | "else" | "endif" | "endfor" | "endset" | "endmacro" | "break" | "continue" | "do" => {}
            "elif" => elifs += 1,
            "set" => value = assigned(&tag.tokens),
            "for" | "macro" => names = bound(&tokens),
            // transformers marks the answers with it, and prints nothing.
            "generation" | "endgeneration" => {
                guarded.source.push_str(&source[done..place]);
                guarded.source.push_str(if statement == "generation" { "if true" } else { "endif" });
                done = place + statement.len();
            }
            other => return Err(bad(format!("`{{% {} %}}` is not supported", short(other)))),
        }
        if elifs > MAX_ELIF {
            return Err(bad(format!("it has more than {MAX_ELIF} `elif`")));
        }
        let close = &source[tag.close..tag.end];
        match value {
            // Before it is bound: a namespace that holds itself, be it for a moment, is never freed.
            Some(start) => {
                let value = &source[start..tag.close];
                guarded.source.push_str(&format!("{}({value})|{KEEP} {close}", &source[done..start]));
            }
            None => guarded.source.push_str(&source[done..tag.end]),
        }
        // As the tag ends, so do the ones behind it: white space goes or stays as it would.
        names.iter().for_each(|name| guarded.source.push_str(&format!("{{% set {name} = {name}|{KEEP} {close}")));
        done = tag.end;
    }
    guarded.source.push_str(&source[done..]);
    Ok(guarded)
}

/// One tag from behind its `{%`, cut as minijinja cuts it.
fn tag<'s>(source: &'s str, inside: usize, closing: &str) -> Result<Tag<'s>> {
    let bytes = source.as_bytes();
    let mut at = inside + usize::from(matches!(bytes.get(inside), Some(b'-' | b'+')));
    let (mut tokens, mut depth) = (Vec::new(), 0usize);
    let word = |c: char| c.is_alphanumeric() || c == '_' || !c.is_ascii();
    loop {
        at += source[at..].len() - source[at..].trim_ascii_start().len();
        let rest = &source[at..];
        let Some(first) = rest.chars().next() else { return Err(bad("a tag is not closed")) };
        let mark = usize::from(matches!(first, '-' | '+'));
        if depth == 0 && rest[mark..].starts_with(closing) {
            return Ok(Tag { tokens, close: at, end: at + mark + closing.len() });
        }
        if tokens.len() == MAX_TOKENS {
            return Err(bad(format!("a tag has more than {MAX_TOKENS} words and signs")));
        }
        let token = match first {
            '"' | '\'' => {
                let mut escaped = false;
                let end = rest[1..].find(|c| {
                    let ends = c == first && !escaped;
                    escaped = c == '\\' && !escaped;
                    ends
                });
                Quoted(&rest[1..1 + end.ok_or_else(|| bad("a quoted text is not closed"))?])
            }
            _ if word(first) => Word(&rest[..rest.find(|c| !word(c)).unwrap_or(rest.len())]),
            _ => {
                let double = ["//", "**", "==", "!=", ">=", "<="].into_iter().any(|sign| rest.starts_with(sign));
                match first {
                    '(' | '[' | '{' => depth += 1,
                    ')' | ']' | '}' => {
                        depth = depth.checked_sub(1).ok_or_else(|| bad(format!("a `{first}` opens nothing")))?;
                    }
                    _ => {}
                }
                Sign(&rest[..if double { 2 } else { 1 }])
            }
        };
        tokens.push((token, at));
        at += match token {
            Word(text) | Sign(text) => text.len(),
            Quoted(text) => text.len() + 2,
        };
    }
}

/// `*` makes long lists of long lists, unpaid; templates draw lines with it: `'=' * 20`. `loop.cycle()` divides by the
/// number of its arguments.
fn operators(tokens: &[Token]) -> Result<()> {
    for (i, token) in tokens.iter().enumerate() {
        let before = i.checked_sub(1).and_then(|i| tokens.get(i));
        let quoted = |token: Option<&Token>| matches!(token, Some(Quoted(_)));
        match token {
            Sign("*") if !quoted(before) && !quoted(tokens.get(i + 1)) => {
                return Err(bad("`*` is supported for quoted texts only"));
            }
            Word("cycle") if before == Some(&Sign(".")) => return Err(bad("`loop.cycle` is not supported")),
            _ => {}
        }
    }
    Ok(())
}

/// Where the value of a `set` begins; of a text between `set` and `endset` nowhere.
fn assigned(tokens: &[(Token, usize)]) -> Option<usize> {
    let equals = tokens.iter().position(|(token, _)| *token == Sign("="))?;
    let (target, value) = (&tokens[..equals], &tokens[equals + 1..]);
    let value: Vec<Token> = value.iter().map(|(token, _)| *token).collect();
    let filtered = target.iter().any(|(token, _)| *token == Sign("|"));
    // A namespace would become a plain map. What it begins with goes through the filter itself.
    (!filtered && !value.is_empty() && !is_namespace(&value)).then_some(tokens[equals].1 + 1)
}

/// The names that a `for` or `macro` binds.
fn bound(tokens: &[Token]) -> Vec<String> {
    let until = |end: Token| tokens.iter().position(|token| *token == end);
    let targets = match (tokens[0], tokens.get(2..)) {
        (Word("for"), _) => &tokens[1..until(Word("in")).unwrap_or(1)],
        (Word("macro"), Some(parameters)) => parameters,
        _ => &[],
    };
    let (mut names, mut depth) = (Vec::<String>::new(), 0);
    let mut before = Sign(",");
    for &token in targets {
        match (before, token) {
            (_, Sign("(" | "[" | "{")) => depth += 1,
            (_, Sign(")" | "]" | "}")) => depth -= 1,
            // Behind a `=` stands a parameter's default, in which only brackets have commas.
            (Sign("," | "("), Word(name)) if depth < 2 || tokens[0] != Word("macro") => names.push(name.to_owned()),
            _ => {}
        }
        before = token;
    }
    names
}

/// Whether this is `namespace(...)` and nothing else.
fn is_namespace(tokens: &[Token]) -> bool {
    let mut depth = 0;
    let closes = |token: &Token| {
        match token {
            Sign("(" | "[" | "{") => depth += 1,
            Sign(")" | "]" | "}") => depth -= 1,
            _ => {}
        }
        depth == 0
    };
    tokens.starts_with(&[Word("namespace"), Sign("(")]) && tokens[1..].iter().position(closes) == Some(tokens.len() - 2)
}

/// A word for a message.
fn short(word: &str) -> String {
    word.chars().take(40).collect()
}
