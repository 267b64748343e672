//! The environment of chat templates: what transformers offers them, less what a hostile one could do harm with.

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, ValueKind};
use minijinja::{Environment, Error, ErrorKind, State, Value, filters, functions};
use minijinja_contrib::pycompat;

use super::date::LocalTime;
use super::guard::KEEP;
use super::template::explained;
use crate::Result;

/// What one rendering may cost: an instruction costs 1, data 1 for 64 bytes. A template in the style of Qwen3's takes
/// 63,000 for a conversation of 501 turns, and 37,000 for one message of 400 KB (measured).
pub(super) const FUEL: u64 = 100_000;
/// What a name may hold: how deep values nest, how many there are, and how long their texts are together.
const MAX_DEPTH: usize = 8;
const MAX_NODES: usize = 10_000;
const MAX_BYTES: usize = 2 << 20;
/// Longest set of characters to strip; stripping compares each character with each.
const MAX_STRIP: usize = 64;

/// Filters that make values hold one another several times, or serve nothing that a prompt needs.
const REMOVED: [&str; 8] = ["zip", "chain", "batch", "slice", "groupby", "pprint", "format", "urlencode"];

/// An environment with one template.
pub(super) fn environment(source: String, name: &'static str) -> Result<Environment<'static>> {
    let mut jinja = Environment::new();
    jinja.set_fuel(Some(FUEL));
    // As transformers does.
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    jinja.set_syntax(syntax.map_err(|e| explained(&e))?);
    REMOVED.iter().for_each(|name| jinja.remove_filter(name));
    ["debug", "dict"].iter().for_each(|name| jinja.remove_global(name));
    jinja.add_filter(KEEP, |state: &mut State, value: &Value| keep(state, value));
    jinja.add_filter("tojson", tojson);
    jinja.add_filter("trim", |value: &str, chars: Option<&str>| strip(chars).map(|()| trim(value, chars)));
    jinja.add_function("namespace", namespace);
    jinja.add_function("raise_exception", |why: &str| Err::<Value, _>(invalid(why.to_owned())));
    jinja.set_unknown_method_callback(method);
    jinja.add_template_owned(name, source).map_err(|e| explained(&e))?;
    Ok(jinja)
}

/// The function that tells a template the date.
pub(super) fn strftime_now(now: LocalTime) -> Value {
    Value::from_function(move |format: &str| now.format(format).map_err(invalid))
}

fn invalid(why: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, why.into())
}

/// The value as a tree of its own: no part is part of another, and none is computed later.
fn keep(state: &State, value: &Value) -> Result<Value, Error> {
    let (mut nodes, mut bytes) = (0, 0);
    let kept = copy(value, 0, &mut nodes, &mut bytes)?;
    state.consume_fuel(nodes as u64)?;
    Ok(kept)
}

fn copy(value: &Value, depth: usize, nodes: &mut usize, bytes: &mut usize) -> Result<Value, Error> {
    *nodes += 1;
    *bytes += value.as_str().map_or(0, str::len);
    if depth > MAX_DEPTH || *nodes > MAX_NODES || *bytes > MAX_BYTES {
        return Err(invalid(format!(
            "a variable holds too much (at most {MAX_NODES} values, nested {MAX_DEPTH} times, of {MAX_BYTES} bytes)"
        )));
    }
    match value.kind() {
        ValueKind::Seq | ValueKind::Iterable => {
            let items = value.try_iter()?.map(|item| copy(&item, depth + 1, nodes, bytes));
            Ok(items.collect::<Result<Vec<Value>, Error>>()?.into())
        }
        ValueKind::Map => {
            let keys = value.try_iter()?.map(|key| {
                let item = value.get_item(&key)?;
                Ok((copy(&key, depth + 1, nodes, bytes)?, copy(&item, depth + 1, nodes, bytes)?))
            });
            Ok(Value::from_pairs(keys.collect::<Result<Vec<_>, Error>>()?))
        }
        ValueKind::Invalid => Err(invalid("a variable's value could not be computed")),
        ValueKind::Plain => Err(invalid("a variable cannot hold a function")),
        _ => Ok(value.clone()),
    }
}

fn namespace(state: &mut State, values: Kwargs) -> Result<Value, Error> {
    let mut kept = Vec::new();
    for name in values.args() {
        kept.push((name, keep(state, &values.get(name)?)?));
    }
    functions::namespace(Some(Value::from_pairs(kept).into()))
}

/// JSON as Python writes it: nothing is escaped for HTML.
fn tojson(state: &mut State, value: &Value, indent: Option<Value>, options: Kwargs) -> Result<Value, Error> {
    let _: Option<Value> = options.get("ensure_ascii")?;
    let indent = match indent {
        Some(indent) => Some(indent),
        None => options.get("indent")?,
    };
    options.assert_all_used()?;
    // A tree of bounded size, before it becomes text.
    let json = filters::tojson(&keep(state, value)?, indent, std::iter::empty::<(&str, Value)>().collect())?;
    let json = json.as_str().unwrap_or_default();
    // Text costs 1 for 64 bytes; to write it as JSON is a lot slower.
    state.consume_fuel(json.len() as u64 / 4)?;
    let (mut text, mut rest) = (String::with_capacity(json.len()), json);
    while let Some(at) = rest.find('\\') {
        text.push_str(&rest[..at]);
        let escapes = [("\\u003c", "<"), ("\\u003e", ">"), ("\\u0026", "&"), ("\\u0027", "'")];
        let known = escapes.into_iter().find(|(escape, _)| rest[at..].starts_with(escape));
        // Any other escape stays, its second character with it.
        let (escape, plain) = known.unwrap_or_else(|| (&rest[at..at + 2], &rest[at..at + 2]));
        text.push_str(plain);
        rest = &rest[at + escape.len()..];
    }
    text.push_str(rest);
    Ok(text.into())
}

/// Python's methods of texts, lists and dictionaries.
fn method(state: &mut State, value: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    match name {
        "strip" | "lstrip" | "rstrip" => strip(args.first().and_then(Value::as_str))?,
        // Widths are made before they are paid; what a list counts is not paid at all.
        "format" => return Err(Error::from(ErrorKind::UnknownMethod)),
        "count" if value.as_str().is_none() => return Err(Error::from(ErrorKind::UnknownMethod)),
        _ => {}
    }
    pycompat::unknown_method_callback(state, value, name, args)
}

fn strip(chars: Option<&str>) -> Result<(), Error> {
    match chars {
        Some(chars) if chars.len() > MAX_STRIP => Err(invalid(format!("more than {MAX_STRIP} bytes to strip"))),
        _ => Ok(()),
    }
}

fn trim(text: &str, chars: Option<&str>) -> String {
    match chars {
        Some(chars) => text.trim_matches(|c| chars.contains(c)).to_owned(),
        None => text.trim().to_owned(),
    }
}
