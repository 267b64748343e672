//! Checks a chat template before minijinja compiles it, and adds the filters that bound its values.
//!
//! minijinja's fuel counts instructions and the size of flat data. It does not count what is inside a value when that
//! value is printed or compared, and it does not bound the stack. So a list that contains itself overflows the stack.
//! Printing a list that contains another list twice, which contains a third list twice, and so on for forty levels,
//! takes practically for ever. So does repeated `x + x`. Fuel also does not bound how deep an expression nests while it
//! is compiled. Therefore:
//!
//! - Tags are short, which bounds the expressions.
//! - Every value that is bound to a name goes through the filter [`KEEP`], which makes it a tree of bounded size. So no
//!   value can contain the value of another name, and growing from one tag to the next costs fuel.
//! - The operands of `*` go through the filter [`NUMBER`], which refuses lists, because a product of lists shares its
//!   parts.
//! - `'...' % values`, which minijinja does not know, is replaced by the filter [`PERCENT`].
//!
//! For each of these rules, the tests have a template that shows what happens without it.

use super::filters::{NUMBER, PERCENT};
use super::keep::KEEP;
use super::tags::Tag;
use super::tags::Token::{Quoted, Sign, Word};
use crate::text::wrong::template as bad;
use crate::{Error, Result};

/// Longest template in bytes. The longest ones in use have about 40,000.
const MAX_SOURCE: usize = 128 << 10;
/// The most `elif` of a template. They nest in the compiler.
const MAX_ELIF: usize = 200;

/// A template that may be compiled.
pub(in crate::text) struct Guarded {
    pub(in crate::text) source: String,
    /// The quoted texts of the template that have no escapes.
    pub(in crate::text) quoted: Vec<String>,
}

/// A replacement of a piece of the source.
struct Edit {
    start: usize,
    end: usize,
    text: String,
}

/// The state of the check, up to some tag.
#[derive(Default)]
struct Guard {
    edits: Vec<Edit>,
    quoted: Vec<String>,
    elifs: usize,
    /// The target of each open `{% set %}` block if the set has filters, which can make lists of its text.
    sets: Vec<Option<String>>,
}

/// Checks a template, and inserts [`KEEP`] wherever a name is bound. Line breaks become `\n`, as in Jinja.
///
/// # Errors
///
/// [`Error::Template`] with the line, if the template uses something that is not supported.
pub(in crate::text) fn guard(source: &str) -> Result<Guarded> {
    if source.len() > MAX_SOURCE {
        return Err(bad(format!("it has {} bytes, more than {MAX_SOURCE}", source.len())));
    }
    let source = &source.replace("\r\n", "\n").replace('\r', "\n");
    let (mut guard, mut at) = (Guard::default(), 0);
    while let Some(found) = source[at..].find('{') {
        let start = at + found;
        at = guard.part(source, start).map_err(|error| match error {
            Error::Template { why } => {
                bad(format!("line {}: {why}", 1 + source[..start].bytes().filter(|&b| b == b'\n').count()))
            }
            other => other,
        })?;
    }
    Ok(Guarded { source: edited(source, guard.edits), quoted: guard.quoted })
}

/// The source with these replacements.
fn edited(source: &str, mut edits: Vec<Edit>) -> String {
    // Edits at the same place keep their order.
    edits.sort_by_key(|edit| edit.start);
    let (mut text, mut done) = (String::with_capacity(source.len() + source.len() / 4), 0);
    for edit in edits {
        text.push_str(&source[done..edit.start]);
        text.push_str(&edit.text);
        done = edit.end;
    }
    text + &source[done..]
}

impl Guard {
    /// Checks what begins with the `{` at `start`. Returns where to continue.
    fn part(&mut self, source: &str, start: usize) -> Result<usize> {
        let closing = match source.as_bytes().get(start + 1) {
            // A comment without an end is reported by minijinja.
            Some(b'#') => return Ok(source[start..].find("#}").map_or(source.len(), |length| start + length + 2)),
            Some(b'%') => "%}",
            Some(b'{') => "}}",
            _ => return Ok(start + 1),
        };
        let tag = Tag::read(source, start + 2, closing)?;
        self.quoted.extend(tag.tokens.iter().filter_map(|token| match token {
            Quoted(text) if !text.contains('\\') => Some((*text).to_owned()),
            _ => None,
        }));
        self.operators(&tag)?;
        match tag.tokens.first() {
            Some(&Word("raw")) if closing == "%}" => return end_of_raw(source, tag.end),
            Some(&Word(statement)) if closing == "%}" => self.statement(source, statement, &tag)?,
            _ => {}
        }
        Ok(tag.end)
    }

    fn insert(&mut self, at: usize, text: impl Into<String>) {
        self.replace((at, at), text);
    }

    fn replace(&mut self, (start, end): (usize, usize), text: impl Into<String>) {
        self.edits.push(Edit { start, end, text: text.into() });
    }

    /// Checks `{% statement ... %}`.
    fn statement(&mut self, source: &str, statement: &str, tag: &Tag) -> Result<()> {
        let mut names = Vec::new();
        match statement {
            "if" | "else" | "endif" | "endfor" | "endmacro" | "break" | "continue" | "do" => {}
            "endwith" | "filter" | "endfilter" | "endcall" => {}
            "elif" => self.elifs += 1,
            "set" => self.set(source, tag),
            "endset" => names.extend(self.sets.pop().flatten()),
            "for" | "macro" | "call" => names = bound(tag),
            "with" => names = with(tag),
            // transformers marks the answers with this tag, which prints nothing.
            "generation" => self.replace(tag.places[0], "if true"),
            "endgeneration" => self.replace(tag.places[0], "endif"),
            other => {
                let short: String = other.chars().take(40).collect();
                return Err(bad(format!("`{{% {short} %}}` is not supported")));
            }
        }
        if self.elifs > MAX_ELIF {
            return Err(bad(format!("it has more than {MAX_ELIF} `elif`")));
        }
        // The inserted tags end like this tag (`%}` or `-%}`), so that white space is kept or removed as before.
        let close = &source[tag.close..tag.end];
        names.iter().for_each(|name| self.insert(tag.end, format!("{{% set {name} = ({name})|{KEEP} {close}")));
        Ok(())
    }

    /// Inserts [`KEEP`] into `{% set target = value %}`, or remembers the target of `{% set target %}` and of `{% set
    /// target|filter %}`, whose text follows.
    fn set(&mut self, source: &str, tag: &Tag) {
        let outside = |sign| tag.tokens.iter().zip(tag.depths(0)).position(|(t, depth)| depth == 0 && *t == Sign(sign));
        match (outside("="), outside("|")) {
            (Some(equals), filter) if filter.is_none_or(|filter| filter > equals) => {
                // A namespace is excepted, because the filter would turn it into a plain map. Its first values go
                // through the filter by themselves.
                if equals + 1 < tag.tokens.len() && !is_namespace(tag, equals + 1, tag.tokens.len()) {
                    // The filter comes before the value is bound: a namespace that contained itself, even for a moment,
                    // would never be freed.
                    self.insert(tag.places[equals].1, "(");
                    self.insert(tag.close, format!(")|{KEEP} "));
                }
            }
            (_, Some(filter)) => {
                self.sets.push(Some(source[tag.places[0].1..tag.places[filter].0].trim().to_owned()));
            }
            _ => self.sets.push(None),
        }
    }

    /// Checks `*` and `%`, and `loop.cycle()`, which divides by the number of its arguments.
    fn operators(&mut self, tag: &Tag) -> Result<()> {
        const STRONG: [&str; 5] = ["*", "/", "//", "%", "**"];
        for (i, &token) in tag.tokens.iter().enumerate() {
            let before = i.checked_sub(1).map(|i| tag.tokens[i]);
            let end = tag.operand_end(i + 1).map(|last| tag.places[last].1);
            match token {
                // The `*` of `f(*values)` is no multiplication.
                Sign("*") if matches!(before, None | Some(Sign("(" | ","))) => {}
                Sign("*") => {
                    let Some(end) = end else { continue };
                    self.insert(tag.places[i - 1].1, format!("|{NUMBER}"));
                    self.insert(end, format!("|{NUMBER}"));
                }
                Sign("%") if matches!(before, Some(Quoted(_))) => {
                    let first = tag.tokens[..i].iter().rposition(|token| !matches!(token, Quoted(_)));
                    let strong = first.is_some_and(|first| matches!(tag.tokens[first], Sign(s) if STRONG.contains(&s)));
                    let Some(end) = end.filter(|_| !strong) else { continue };
                    self.replace(tag.places[i], format!("|{PERCENT}("));
                    self.insert(end, ")");
                }
                Word("cycle") if before == Some(Sign(".")) => {
                    let empty = matches!(tag.tokens.get(i + 2), None | Some(Sign(")" | "*" | "**")));
                    if tag.tokens.get(i + 1) != Some(&Sign("(")) || empty {
                        return Err(bad("`loop.cycle` is supported with its values in brackets only"));
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// Where the tag `endraw` ends.
fn end_of_raw(source: &str, from: usize) -> Result<usize> {
    let mut at = from;
    while let Some(found) = source[at..].find("{%") {
        at += found + 2;
        let inside = source[at..].trim_start_matches(['-', '+']).trim_start();
        let name = inside.strip_prefix("endraw").map(|rest| rest.trim_start().trim_start_matches(['-', '+']));
        if let Some(rest) = name.filter(|rest| rest.starts_with("%}")) {
            return Ok(source.len() - rest.len() + 2);
        }
    }
    Err(bad("`{% raw %}` is not closed"))
}

/// The names that a `for`, `macro` or `call` binds.
fn bound(tag: &Tag) -> Vec<String> {
    let (statement, until) = (tag.tokens[0], |end| tag.tokens.iter().position(|token| *token == end));
    let from = match statement {
        Word("macro") => 2,
        // Without brackets after it, a `call` binds no names.
        Word("call") if tag.tokens.get(1) != Some(&Sign("(")) => return Vec::new(),
        _ => 1,
    };
    let to = match statement {
        Word("for") => until(Word("in")).unwrap_or(1),
        Word("call") => tag.depths(1).position(|depth| depth == 0).map_or(tag.tokens.len(), |length| 1 + length),
        _ => tag.tokens.len(),
    };
    let (mut names, mut before) = (Vec::<String>::new(), Sign(","));
    for (&token, depth) in tag.tokens.get(from..to).unwrap_or_default().iter().zip(tag.depths(from)) {
        match (before, token) {
            // A parameter's default may follow a `=`. Commas in it are inside brackets.
            (Sign("," | "("), Word(name)) if depth < 2 || statement == Word("for") => names.push(name.to_owned()),
            _ => {}
        }
        before = token;
    }
    names
}

/// The names that a `with` binds, except those of a namespace, which the filter would turn into a plain map.
fn with(tag: &Tag) -> Vec<String> {
    let depths: Vec<usize> = tag.depths(0).collect();
    let outside = |i: usize, sign| depths[i] == 0 && tag.tokens[i] == Sign(sign);
    let (mut names, count) = (Vec::new(), tag.tokens.len());
    for i in 1..count {
        let Word(name) = tag.tokens[i] else { continue };
        if i > 1 && !outside(i - 1, ",") {
            continue;
        }
        let end = (i..count).find(|&end| outside(end, ",")).unwrap_or(count);
        let equals = (i..end).find(|&equals| outside(equals, "="));
        if !equals.is_some_and(|equals| is_namespace(tag, equals + 1, end)) {
            names.push(name.to_owned());
        }
    }
    names
}

/// Whether these tokens are `namespace(...)` and nothing else.
fn is_namespace(tag: &Tag, from: usize, to: usize) -> bool {
    tag.tokens.get(from..to).is_some_and(|value| value.starts_with(&[Word("namespace"), Sign("(")]))
        && tag.depths(from + 1).position(|depth| depth == 0) == Some(to - from - 2)
}
