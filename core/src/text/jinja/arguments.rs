//! The arguments of filters and methods, and the errors about wrong ones.

use minijinja::value::{Kwargs, from_args};
use minijinja::{Error, ErrorKind, State, Value};

/// The most bytes that one value may hold or a filter may write.
pub(super) const MAX_BYTES: usize = 2 << 20;

/// The error of a filter or function of a template.
pub(super) fn invalid(why: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, why.into())
}

/// Arguments by name, whether a template gives them by position or by name.
pub(super) fn arguments<const N: usize>(given: &[Value], names: [&str; N]) -> Result<[Option<Value>; N], Error> {
    let (places, named): (&[Value], Kwargs) = from_args(given)?;
    if places.len() > N {
        return Err(invalid(format!("{} arguments are more than {N}", places.len())));
    }
    let mut found = [const { None }; N];
    for (i, name) in names.into_iter().enumerate() {
        found[i] = match places.get(i) {
            Some(value) => Some(value.clone()),
            None => named.get::<Option<Value>>(name)?,
        };
    }
    named.assert_all_used()?;
    Ok(found)
}

/// A width that a template asks for. Its fuel is consumed before anything of that width is made.
pub(super) fn width(state: &State, what: &str, number: &Value) -> Result<usize, Error> {
    let width = i64::try_from(number.clone()).map_err(|_| invalid(format!("{what}: a width is not a whole number")))?;
    let width = usize::try_from(width.max(0)).unwrap_or(usize::MAX);
    if width > MAX_BYTES {
        return Err(invalid(format!("{what}: the width {width} is more than {MAX_BYTES}")));
    }
    state.consume_fuel(width as u64 / 64)?;
    Ok(width)
}
