//! Filters and tests that minijinja lacks, defines in another way than Jinja, or does not bound.

use minijinja::formatting::{FormatStyle, format};
use minijinja::value::{Kwargs, Rest, Tuple, ValueKind, ValueOrKwargs, from_args};
use minijinja::{Environment, Error, State, Value, filters, functions};

use super::arguments::{MAX_BYTES, arguments, invalid, width};
use super::json::tojson;
use super::keep::{Group, keep};

/// The filter that operands of `*` go through.
pub(super) const NUMBER: &str = "_number";
/// The filter that `'...' % values` is replaced by.
pub(super) const PERCENT: &str = "_percent";

/// The most bytes of a set of characters to strip. Stripping compares each character of a text with each of the set.
const MAX_STRIP: usize = 64;
/// Filters that make values share parts with one another, or that Jinja does not have.
const REMOVED: [&str; 6] = ["zip", "chain", "slice", "pprint", "urlencode", "lines"];

/// Adds the filters and tests of this module to an environment.
pub(super) fn add(jinja: &mut Environment) {
    REMOVED.iter().for_each(|name| jinja.remove_filter(name));
    jinja.add_filter(NUMBER, number);
    jinja.add_filter(PERCENT, percent);
    jinja.add_filter("tojson", tojson);
    jinja.add_filter("trim", trim);
    jinja.add_filter("format", |state: &mut State, text: &str, values: Rest<ValueOrKwargs>| {
        formatted(state, FormatStyle::Printf, text, &values.into_values())
    });
    jinja.add_filter("center", center);
    jinja.add_filter("escape", escape);
    jinja.add_filter("e", escape);
    jinja.add_filter("default", default);
    jinja.add_filter("d", default);
    jinja.add_filter("int", int);
    jinja.add_filter("float", float);
    jinja.add_filter("attr", attr);
    jinja.add_filter("batch", batch);
    jinja.add_filter("groupby", groupby);
    jinja.add_function("dict", |state: &mut State, first: Option<Value>, values: Kwargs| {
        keep(state, &functions::dict(first, values)?)
    });
    jinja.add_test("iterable", |value: &Value| is_container(value) || value.is_undefined());
    jinja.add_test("sequence", |value: &Value| {
        (is_container(value) && value.kind() != ValueKind::Iterable) || value.is_undefined()
    });
    jinja.add_test("callable", |value: &Value| value.kind() == ValueKind::Plain);
}

/// On which side a text is aligned in its width.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Side {
    Left,
    Right,
    Both,
}

/// A text that is padded with `fill` to `width` characters.
pub(super) fn padded(text: &str, width: usize, side: Side, fill: char) -> String {
    let missing = width.saturating_sub(text.chars().count());
    let before = match side {
        Side::Left => 0,
        Side::Right => missing,
        // As in Python: if the padding is odd, the larger half is in front where the width is odd.
        Side::Both => missing / 2 + (missing & width & 1),
    };
    let fill = |count| std::iter::repeat_n(fill, count);
    fill(before).chain(text.chars()).chain(fill(missing - before)).collect()
}

/// Values in a text, formatted as Python's `%` and `format` do it. Before that, the length of the result is bounded,
/// and its fuel is consumed.
pub(super) fn formatted(state: &State, style: FormatStyle, text: &str, values: &[Value]) -> Result<String, Error> {
    let (mut longest, (places, named)) = (32, from_args::<(&[Value], Kwargs)>(values)?);
    let names = named.args().map(|name| named.get::<Value>(name)).collect::<Result<Vec<_>, Error>>()?;
    for value in places.iter().chain(&names) {
        longest = longest.max(match value.as_str() {
            Some(text) => text.len(),
            None => keep(state, value)?.to_string().len(),
        });
    }
    // Any number in the text may be a width or a precision.
    let widths = text.split(|c: char| !c.is_ascii_digit()).filter(|digits| !digits.is_empty());
    let widths = widths.map(|digits| digits.parse().unwrap_or(usize::MAX)).fold(0, usize::saturating_add);
    let fields = text.matches(['%', '{']).count();
    let most = fields.saturating_mul(longest).saturating_add(widths).saturating_add(text.len());
    if most > MAX_BYTES {
        return Err(invalid(format!("format: it could write {most} bytes, more than {MAX_BYTES}")));
    }
    state.consume_fuel(most as u64 / 64)?;
    // The conversion `c` would turn a number of a message into any character, and several of them into a control token.
    if makes_characters(style, text) {
        return Err(invalid("format: the conversion `c` is not supported"));
    }
    format(style, text, values)
}

/// Whether a field of the text has the conversion `c`, or could have it.
fn makes_characters(style: FormatStyle, text: &str) -> bool {
    match style {
        FormatStyle::Printf => text.split('%').skip(1).any(|field| {
            let spec = field.strip_prefix('(').and_then(|key| Some(key.split_once(')')?.1)).unwrap_or(field);
            spec.trim_start_matches(|c: char| c.is_ascii_digit() || "#- +.*hlL".contains(c)).starts_with('c')
        }),
        FormatStyle::StrFormat => text.split('}').any(|field| field.ends_with('c') && field.contains(':')),
    }
}

fn percent(state: &mut State, text: &str, values: &Value) -> Result<String, Error> {
    match values.downcast_object_ref::<Tuple>() {
        Some(values) => formatted(state, FormatStyle::Printf, text, &values.clone().into_vec()),
        None => formatted(state, FormatStyle::Printf, text, std::slice::from_ref(values)),
    }
}

fn number(value: &Value) -> Result<Value, Error> {
    match value.kind() {
        ValueKind::Seq | ValueKind::Iterable | ValueKind::Map => {
            Err(invalid("`*` is supported for texts and numbers only"))
        }
        _ => Ok(value.clone()),
    }
}

/// Whether Python can iterate over the value: a text, a list or a mapping, but not `none`.
fn is_container(value: &Value) -> bool {
    matches!(value.kind(), ValueKind::String | ValueKind::Seq | ValueKind::Map | ValueKind::Iterable)
}

/// Refuses to strip more bytes than [`MAX_STRIP`].
pub(super) fn strip(chars: Option<&str>) -> Result<(), Error> {
    match chars {
        Some(chars) if chars.len() > MAX_STRIP => Err(invalid(format!("more than {MAX_STRIP} bytes to strip"))),
        _ => Ok(()),
    }
}

/// A value as text. Undefined values are empty.
fn text_of(state: &State, value: &Value) -> Result<String, Error> {
    match value.as_str() {
        Some(text) => Ok(text.to_owned()),
        None => Ok(keep(state, value)?.to_string()),
    }
}

fn center(state: &mut State, value: &Value, given: Rest<ValueOrKwargs>) -> Result<String, Error> {
    let [wide] = arguments(&given.into_values(), ["width"])?;
    let wide = width(state, "center", &wide.unwrap_or_else(|| 80.into()))?;
    Ok(padded(&text_of(state, value)?, wide, Side::Both, ' '))
}

fn trim(state: &mut State, value: &Value, given: Rest<ValueOrKwargs>) -> Result<String, Error> {
    let text = text_of(state, value)?;
    let [chars] = arguments(&given.into_values(), ["chars"])?;
    let chars = chars.as_ref().and_then(Value::as_str);
    strip(chars)?;
    Ok(match chars {
        Some(chars) => text.trim_matches(|c| chars.contains(c)).to_owned(),
        None => text.trim().to_owned(),
    })
}

/// Escapes a value for HTML, with the same references as Jinja.
fn escape(state: &mut State, value: &Value) -> Result<Value, Error> {
    if value.is_safe() {
        return Ok(value.clone());
    }
    let text = text_of(state, value)?;
    state.consume_fuel(text.len() as u64 / 16)?;
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&#34;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    Ok(Value::from_safe_string(escaped))
}

fn default(value: &Value, given: Rest<ValueOrKwargs>) -> Result<Value, Error> {
    let [other, boolean] = arguments(&given.into_values(), ["default_value", "boolean"])?;
    let falsy = boolean.is_some_and(|boolean| boolean.is_true()) && !value.is_true();
    Ok(if value.is_undefined() || falsy { other.unwrap_or_else(|| "".into()) } else { value.clone() })
}

/// The filter `int`. A value that is not a number becomes the default.
fn int(state: &mut State, value: &Value, given: Rest<ValueOrKwargs>) -> Result<Value, Error> {
    let [default, base] = arguments(&given.into_values(), ["default", "base"])?;
    let (base, default) = (base.map(u32::try_from).transpose()?, default.unwrap_or_else(|| 0.into()));
    match numeric(value)? {
        Some(value) => filters::int(state, &value, Some(default), base, std::iter::empty::<(&str, Value)>().collect()),
        None => Ok(default),
    }
}

/// The filter `float`. A value that is not a number becomes the default.
fn float(state: &mut State, value: &Value, given: Rest<ValueOrKwargs>) -> Result<Value, Error> {
    let [default] = arguments(&given.into_values(), ["default"])?;
    let default = default.unwrap_or_else(|| 0.0.into());
    match numeric(value)? {
        Some(value) => filters::float(state, &value, Some(default), std::iter::empty::<(&str, Value)>().collect()),
        None => Ok(default),
    }
}

/// A value that may be a number, as a text without white space around it.
fn numeric(value: &Value) -> Result<Option<Value>, Error> {
    match value.kind() {
        ValueKind::Undefined => Err(invalid("an undefined value is no number")),
        ValueKind::String => Ok(value.as_str().map(|text| text.trim().into())),
        ValueKind::Number | ValueKind::Bool => Ok(Some(value.clone())),
        _ => Ok(None),
    }
}

/// The filter `attr`: an attribute, not an item. A mapping has no attributes.
fn attr(value: &Value, name: &Value) -> Result<Value, Error> {
    match value.kind() {
        ValueKind::Map => Ok(Value::UNDEFINED),
        _ => filters::attr(value, name),
    }
}

fn batch(state: &mut State, value: &Value, count: &Value, fill: Option<Value>) -> Result<Value, Error> {
    let count = width(state, "batch", count)?;
    let rows = filters::batch(state, keep(state, value)?, count, fill)?;
    keep(state, &rows)
}

fn groupby(state: &mut State, value: &Value, given: Rest<ValueOrKwargs>) -> Result<Value, Error> {
    let [attribute, default, case] = arguments(&given.into_values(), ["attribute", "default", "case_sensitive"])?;
    let attribute = attribute.ok_or_else(|| invalid("groupby: the attribute is missing"))?.to_string();
    let options = [("default", default), ("case_sensitive", case)];
    let options = options.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
    let groups = filters::groupby(keep(state, value)?, Some(&attribute), options)?;
    let mut kept = Vec::new();
    for group in groups.try_iter()? {
        kept.push(Value::from_object(Group::new(vec![group.get_item(&0.into())?, group.get_item(&1.into())?])));
    }
    keep(state, &kept.into())
}
