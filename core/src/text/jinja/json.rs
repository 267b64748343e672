//! The filter `tojson`: writes JSON like Python's `json.dumps`.

use minijinja::value::{Rest, ValueKind, ValueOrKwargs};
use minijinja::{Error, State, Value};

use super::arguments::{MAX_BYTES, arguments, invalid, width};
use super::keep::keep;

/// The arguments of `json.dumps`.
struct Style {
    /// The white space of one level of indentation. With it, every item is on a line of its own.
    indent: Option<String>,
    /// The separators between items and after a key.
    separators: [String; 2],
    sort_keys: bool,
    ensure_ascii: bool,
}

/// The filter `tojson`. As in transformers, nothing is escaped for HTML.
pub(super) fn tojson(state: &mut State, value: &Value, given: Rest<ValueOrKwargs>) -> Result<Value, Error> {
    let given = arguments(&given.into_values(), ["ensure_ascii", "indent", "separators", "sort_keys"])?;
    let [ensure_ascii, indent, separators, sort_keys] = given.map(|value| value.filter(|value| !value.is_none()));
    let indent = match indent {
        None => None,
        Some(indent) => Some(match indent.as_str() {
            Some(text) => text.to_owned(),
            None => " ".repeat(width(state, "tojson", &indent)?),
        }),
    };
    let separators = match separators {
        Some(pair) => {
            let texts = pair.try_iter()?.take(3).map(|text| Some(text.as_str()?.to_owned()));
            let texts = texts.collect::<Option<Vec<String>>>().and_then(|texts| texts.try_into().ok());
            texts.ok_or_else(|| invalid("tojson: `separators` is not a pair of texts"))?
        }
        None if indent.is_some() => [",".to_owned(), ": ".to_owned()],
        None => [", ".to_owned(), ": ".to_owned()],
    };
    let [sort_keys, ensure_ascii] = [sort_keys, ensure_ascii].map(|flag| flag.is_some_and(|flag| flag.is_true()));
    let style = Style { indent, separators, sort_keys, ensure_ascii };
    let mut out = String::new();
    // The value is copied into a tree of bounded size before it is written.
    write(&keep(state, value)?, &style, 0, &mut out)?;
    // Elsewhere 64 bytes of text cost 1. Writing JSON is a lot slower, so 4 bytes cost 1.
    state.consume_fuel(out.len() as u64 / 4)?;
    Ok(out.into())
}

fn write(value: &Value, style: &Style, depth: usize, out: &mut String) -> Result<(), Error> {
    match value.kind() {
        ValueKind::Undefined => return Err(invalid("tojson: a value is undefined")),
        ValueKind::None => out.push_str("null"),
        ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
        ValueKind::Number => match f64::try_from(value.clone()) {
            Ok(number) if !value.is_integer() => out.push_str(&match number {
                _ if number.is_nan() => "NaN".to_owned(),
                _ if number.is_infinite() => if number > 0.0 { "Infinity" } else { "-Infinity" }.to_owned(),
                _ => float(number),
            }),
            _ => out.push_str(&value.to_string()),
        },
        ValueKind::String => quote(value.as_str().unwrap_or_default(), style, out),
        ValueKind::Seq => {
            let items = value.try_iter()?.map(|item| (None, item)).collect();
            write_items(items, ['[', ']'], style, depth, out)?;
        }
        ValueKind::Map => {
            let mut items = Vec::new();
            for key in value.try_iter()? {
                let item = value.get_item(&key)?;
                items.push((Some(name(&key)?), item));
            }
            if style.sort_keys {
                items.sort_by(|(a, _), (b, _)| a.cmp(b));
            }
            write_items(items, ['{', '}'], style, depth, out)?;
        }
        other => return Err(invalid(format!("tojson: a {other} cannot be written as JSON"))),
    }
    room(out, 0)
}

fn write_items(
    items: Vec<(Option<String>, Value)>,
    brackets: [char; 2],
    style: &Style,
    depth: usize,
    out: &mut String,
) -> Result<(), Error> {
    let [open, close] = brackets;
    let [between, behind_key] = &style.separators;
    let empty = items.is_empty();
    out.push(open);
    for (index, (key, item)) in items.into_iter().enumerate() {
        if index > 0 {
            out.push_str(between);
        }
        line(style, depth + 1, out)?;
        if let Some(key) = key {
            quote(&key, style, out);
            out.push_str(behind_key);
        }
        write(&item, style, depth + 1, out)?;
    }
    if !empty {
        line(style, depth, out)?;
    }
    out.push(close);
    Ok(())
}

/// Begins a new line, if every item has one.
fn line(style: &Style, depth: usize, out: &mut String) -> Result<(), Error> {
    let Some(indent) = &style.indent else { return Ok(()) };
    room(out, indent.len().saturating_mul(depth))?;
    out.push('\n');
    out.push_str(&indent.repeat(depth));
    Ok(())
}

/// Checks that `more` bytes may be written.
fn room(out: &str, more: usize) -> Result<(), Error> {
    match out.len().saturating_add(more) > MAX_BYTES {
        true => Err(invalid(format!("tojson: it writes more than {MAX_BYTES} bytes"))),
        false => Ok(()),
    }
}

/// A key as JSON writes it.
fn name(key: &Value) -> Result<String, Error> {
    Ok(match key.kind() {
        ValueKind::String => key.as_str().unwrap_or_default().to_owned(),
        ValueKind::None => "null".to_owned(),
        ValueKind::Bool => key.is_true().to_string(),
        ValueKind::Number => match f64::try_from(key.clone()) {
            Ok(number) if !key.is_integer() => float(number),
            _ => key.to_string(),
        },
        other => return Err(invalid(format!("tojson: a {other} cannot be a key"))),
    })
}

fn quote(text: &str, style: &Style, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            c if c < ' ' || (style.ensure_ascii && !(' '..='~').contains(&c)) => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    out.push_str(&format!("\\u{unit:04x}"));
                }
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

/// A number like Python's `repr`: with an exponent below 1e-4 and from 1e16 on.
pub(super) fn float(number: f64) -> String {
    let size = number.abs();
    if !number.is_finite() {
        return if number.is_nan() {
            "nan"
        } else if number > 0.0 {
            "inf"
        } else {
            "-inf"
        }
        .to_owned();
    }
    if size == 0.0 || (1e-4..1e16).contains(&size) {
        return format!("{number:?}");
    }
    // Rust writes `1e-5`, and Python `1e-05`.
    let text = format!("{number:e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |exponent| ('-', exponent));
    format!("{digits}e{sign}{exponent:0>2}")
}
