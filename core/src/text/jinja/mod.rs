//! The Jinja of chat templates: what transformers offers to templates, without what a hostile template could use to do
//! harm.
//!
//! The language is minijinja's. [`guard`] checks a template before minijinja compiles it, [`keep`] bounds the values of
//! names, and the filters and methods here are those that minijinja lacks, defines in another way than Jinja, or does
//! not bound.

mod arguments;
mod filters;
mod guard;
mod json;
mod keep;
mod methods;
mod tags;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::ValueKind;
use minijinja::{Environment, Error, ErrorKind, Output, State, Value, escape_formatter};

use super::date::LocalTime;
use super::wrong::template as bad;
use crate::Result;
use arguments::invalid;
pub(super) use guard::guard;
use keep::{KEEP, keep, namespace};

/// The fuel of one rendering: an instruction costs 1, and data costs 1 for 64 bytes. A template in the style of
/// Qwen3's takes 63,000 for a conversation of 501 turns, and 37,000 for one message of 400 KB (measured).
const FUEL: u64 = 100_000;
/// The name of a template in its environment.
const NAME: &str = "chat_template";

/// A compiled template.
pub(super) struct Compiled(Environment<'static>);

impl Compiled {
    /// Compiles a template that [`guard`] has checked.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Template`] if it is not Jinja.
    pub(super) fn new(source: String) -> Result<Compiled> {
        let mut jinja = Environment::new();
        jinja.set_fuel(Some(FUEL));
        // The same settings as in transformers.
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        jinja.set_syntax(syntax.map_err(|e| explained(&e))?);
        jinja.set_formatter(show);
        jinja.add_filter(KEEP, |state: &mut State, value: &Value| keep(state, value));
        filters::add(&mut jinja);
        jinja.remove_global("debug");
        jinja.add_function("namespace", namespace);
        jinja.add_function("raise_exception", |why: &str| Err::<Value, _>(invalid(why)));
        jinja.set_unknown_method_callback(methods::call);
        jinja.add_template_owned(NAME, source).map_err(|e| explained(&e))?;
        Ok(Compiled(jinja))
    }

    /// The text that the template writes with these variables.
    pub(super) fn render<'n>(&self, variables: impl IntoIterator<Item = (&'n str, Value)>) -> Result<String> {
        let template = self.0.get_template(NAME).map_err(|e| explained(&e))?;
        template.render(Value::from_pairs(variables)).map_err(|e| explained(&e))
    }
}

/// The function `strftime_now`, with which a template asks for the date.
pub(super) fn strftime_now(now: LocalTime) -> Value {
    Value::from_function(move |format: &str| now.format(format).map_err(invalid))
}

/// Writes a value into the text. A value that is too large is refused before it is written, and numbers look like in
/// Python.
fn show(out: &mut Output, state: &mut State, value: &Value) -> Result<(), Error> {
    match value.kind() {
        ValueKind::Seq | ValueKind::Iterable | ValueKind::Map => escape_formatter(out, state, &keep(state, value)?),
        ValueKind::Number if !value.is_integer() => match f64::try_from(value.clone()) {
            Ok(number) => Ok(out.write_str(&json::float(number))?),
            Err(_) => escape_formatter(out, state, value),
        },
        _ => escape_formatter(out, state, value),
    }
}

/// The error of minijinja, with the line.
fn explained(error: &Error) -> crate::Error {
    let kind = error.kind();
    let mut why = match (kind, error.detail()) {
        (ErrorKind::OutOfFuel, _) => {
            format!("it takes more than the {FUEL} units of fuel that a conversation may cost")
        }
        (ErrorKind::SyntaxError, Some(detail)) => format!("it is no valid Jinja: {detail}"),
        (_, Some(detail)) => detail.to_owned(),
        (_, None) => kind.to_string(),
    };
    // The line comes first, because the message may be cut.
    if let Some(line) = error.line() {
        why = format!("line {line}: {why}");
    }
    bad(why)
}
