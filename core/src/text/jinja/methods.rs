//! Python's methods of texts, lists and mappings.

use minijinja::formatting::FormatStyle;
use minijinja::value::{Tuple, ValueKind};
use minijinja::{Error, ErrorKind, State, Value};
use minijinja_contrib::pycompat;

use super::arguments::{arguments, invalid, width};
use super::filters::{Side, formatted, padded, strip};
use super::keep::keep;

/// Calls a method that minijinja does not know: `value.name(given)`.
pub(super) fn call(state: &mut State, value: &Value, name: &str, given: &[Value]) -> Result<Value, Error> {
    let own = match (value.as_str(), value.kind()) {
        (Some(text), _) => of_text(state, text, name, given)?,
        (None, ValueKind::Seq) => of_list(state, value, name, given)?,
        _ => None,
    };
    match own {
        Some(result) => Ok(result),
        None => pycompat::unknown_method_callback(state, value, name, given),
    }
}

/// The methods of texts that minijinja's pycompat lacks, defines in another way than Python, or does not bound.
fn of_text(state: &mut State, text: &str, name: &str, given: &[Value]) -> Result<Option<Value>, Error> {
    // The fuel for reading the text. The fuel for the result is consumed when it is made.
    state.consume_fuel(text.len() as u64 / 64)?;
    let pad = |state: &mut State, side| {
        let [wide, fill] = arguments(given, ["width", "fillchar"])?;
        let wide = width(state, name, &wide.ok_or_else(|| missing(name))?)?;
        let fill = fill.map_or(Ok(" ".to_owned()), |fill| string(name, &fill))?;
        let mut chars = fill.chars();
        match (chars.next(), chars.next()) {
            (Some(fill), None) => Ok(padded(text, wide, side, fill).into()),
            _ => Err(invalid(format!("{name}: the fill is not one character"))),
        }
    };
    let one = || {
        let [argument] = arguments(given, ["text"])?;
        string(name, &argument.ok_or_else(|| missing(name))?)
    };
    Ok(Some(match name {
        "strip" | "lstrip" | "rstrip" => {
            strip(given.first().and_then(Value::as_str))?;
            return Ok(None);
        }
        "format" => formatted(state, FormatStyle::StrFormat, text, given)?.into(),
        "ljust" => pad(state, Side::Left)?,
        "rjust" => pad(state, Side::Right)?,
        "center" => pad(state, Side::Both)?,
        "zfill" => {
            let [wide] = arguments(given, ["width"])?;
            let wide = width(state, name, &wide.ok_or_else(|| missing(name))?)?;
            let sign = text.len() - text.trim_start_matches(['+', '-']).len();
            let (sign, digits) = text.split_at(sign.min(1));
            format!("{sign}{}", padded(digits, wide.saturating_sub(sign.len()), Side::Right, '0')).into()
        }
        "removeprefix" => text.strip_prefix(one()?.as_str()).unwrap_or(text).into(),
        "removesuffix" => text.strip_suffix(one()?.as_str()).unwrap_or(text).into(),
        "partition" | "rpartition" => {
            let separator = one()?;
            if separator.is_empty() {
                return Err(invalid(format!("{name}: the separator is empty")));
            }
            let last = name == "rpartition";
            let cut = if last { text.rsplit_once(&separator) } else { text.split_once(&separator) };
            let parts = match cut {
                Some((before, behind)) => [before, &separator, behind],
                None if last => ["", "", text],
                None => [text, "", ""],
            };
            Tuple::from(parts.map(Value::from)).into()
        }
        "index" | "rindex" => {
            let part = one()?;
            let at = if name == "index" { text.find(&part) } else { text.rfind(&part) };
            let at = at.ok_or_else(|| invalid(format!("{name}: the text does not contain {part:?}")))?;
            text[..at].chars().count().into()
        }
        "split" | "rsplit" => split(text, name, given)?,
        "splitlines" => {
            let [keep_ends] = arguments(given, ["keepends"])?;
            lines(text, keep_ends.is_some_and(|keep| keep.is_true()))
        }
        "title" => title(text).into(),
        "swapcase" => {
            let swap = |c: char| match c.is_uppercase() {
                true => c.to_lowercase().collect::<String>(),
                false => c.to_uppercase().collect(),
            };
            text.chars().map(swap).collect::<String>().into()
        }
        "isdecimal" => (!text.is_empty() && text.chars().all(|c| c.is_ascii_digit())).into(),
        _ => return Ok(None),
    }))
}

/// The methods of lists. Comparisons consume fuel.
fn of_list(state: &mut State, value: &Value, name: &str, given: &[Value]) -> Result<Option<Value>, Error> {
    if !matches!(name, "count" | "index") {
        return Ok(None);
    }
    let [what] = arguments(given, ["value"])?;
    let what = what.ok_or_else(|| missing(name))?;
    let list = keep(state, value)?;
    let mut found = list.try_iter()?.enumerate().filter(|(_, item)| *item == what);
    Ok(Some(match name {
        "count" => found.count().into(),
        _ => match found.next() {
            Some((at, _)) => at.into(),
            None => return Err(invalid("index: the list does not hold this value")),
        },
    }))
}

fn missing(name: &str) -> Error {
    Error::new(ErrorKind::MissingArgument, format!("{name}: an argument is missing"))
}

fn string(name: &str, value: &Value) -> Result<String, Error> {
    let text = value.as_str().map(str::to_owned);
    text.ok_or_else(|| invalid(format!("{name} takes a text and not a {}", value.kind())))
}

/// `split` and `rsplit`. They differ if there are more separators than `maxsplit`.
fn split(text: &str, name: &str, given: &[Value]) -> Result<Value, Error> {
    let [separator, most] = arguments(given, ["sep", "maxsplit"])?;
    let most = most.map_or(Ok(-1), i64::try_from).map_err(|_| invalid(format!("{name}: maxsplit is no number")))?;
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    let last = name == "rsplit";
    let mut parts: Vec<&str> = match separator.filter(|separator| !separator.is_none()) {
        Some(separator) => {
            let separator = string(name, &separator)?;
            if separator.is_empty() {
                return Err(invalid(format!("{name}: the separator is empty")));
            }
            match last {
                true => text.rsplitn(most.saturating_add(1), &separator).collect(),
                false => text.splitn(most.saturating_add(1), &separator).collect(),
            }
        }
        None => {
            let (mut parts, mut rest) = (Vec::new(), text);
            loop {
                rest = if last { rest.trim_end() } else { rest.trim_start() };
                let cut = match last {
                    _ if parts.len() == most => None,
                    true => rest.rsplit_once(char::is_whitespace).map(|(before, behind)| (behind, before)),
                    false => rest.split_once(char::is_whitespace),
                };
                let (part, left) = cut.unwrap_or((rest, ""));
                if part.is_empty() {
                    break;
                }
                parts.push(part);
                rest = left;
            }
            parts
        }
    };
    if last {
        parts.reverse();
    }
    Ok(parts.into_iter().map(Value::from).collect())
}

/// The lines of a text. Python has more line breaks than `\n`.
fn lines(text: &str, keep_ends: bool) -> Value {
    const BREAKS: &[char] =
        &['\n', '\r', '\u{b}', '\u{c}', '\u{1c}', '\u{1d}', '\u{1e}', '\u{85}', '\u{2028}', '\u{2029}'];
    let (mut lines, mut rest) = (Vec::new(), text);
    while !rest.is_empty() {
        let end = rest.find(BREAKS).unwrap_or(rest.len());
        let length = match rest[end..].chars().next() {
            Some('\r') if rest[end..].starts_with("\r\n") => 2,
            Some(c) => c.len_utf8(),
            None => 0,
        };
        lines.push(Value::from(&rest[..if keep_ends { end + length } else { end }]));
        rest = &rest[end + length..];
    }
    lines.into()
}

/// Python's method `title`, in which a word begins after anything that is no letter. The filter `title` differs.
fn title(text: &str) -> String {
    let (mut title, mut inside) = (String::with_capacity(text.len()), false);
    for c in text.chars() {
        match inside {
            true => title.extend(c.to_lowercase()),
            false => title.extend(c.to_uppercase()),
        }
        inside = c.is_alphabetic();
    }
    title
}
