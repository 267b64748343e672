//! Copies every value that a template binds to a name into a tree of bounded size.

use minijinja::value::{Kwargs, Object, ObjectRepr, Tuple, ValueKind};
use minijinja::{Error, State, Value, functions};
use std::fmt;
use std::sync::Arc;

use super::arguments::{MAX_BYTES, invalid};

/// The filter that is put behind every value that a template binds to a name.
pub(super) const KEEP: &str = "_keep";

/// The limits of a value that is bound to a name: how deep it nests, and how many values it has. [`MAX_BYTES`] limits
/// the length of all its texts together.
const MAX_DEPTH: usize = 8;
const MAX_NODES: usize = 10_000;

/// The value as a tree of its own: no part is shared with another value, and no part is computed later.
pub(super) fn keep(state: &State, value: &Value) -> Result<Value, Error> {
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
            let items = items.collect::<Result<Vec<Value>, Error>>()?;
            Ok(match value.downcast_object_ref::<Group>() {
                Some(_) => Value::from_object(Group::new(items)),
                None if value.downcast_object_ref::<Tuple>().is_some() => Tuple::new(items).into(),
                None => items.into(),
            })
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

/// `namespace(...)`, with values that went through [`keep`].
pub(super) fn namespace(state: &mut State, first: Option<Value>, values: Kwargs) -> Result<Value, Error> {
    let mut kept = match first {
        None => Vec::new(),
        Some(map) if map.kind() == ValueKind::Map => {
            let keys = map.try_iter()?.map(|key| Ok((key.clone(), keep(state, &map.get_item(&key)?)?)));
            keys.collect::<Result<Vec<_>, Error>>()?
        }
        Some(other) => return Err(invalid(format!("namespace takes a mapping and not a {}", other.kind()))),
    };
    for name in values.args() {
        kept.push((name.into(), keep(state, &values.get(name)?)?));
    }
    functions::namespace(Some(Value::from_pairs(kept).into()))
}

/// A group that `groupby` makes: a pair whose two parts also have names.
#[derive(Debug)]
pub(super) struct Group {
    /// The parts `grouper` and `list`.
    parts: [Value; 2],
}

impl Group {
    /// Makes a group of `grouper` and `list`.
    pub(super) fn new(parts: Vec<Value>) -> Group {
        let mut parts = parts.into_iter();
        Group { parts: [parts.next().unwrap_or_default(), parts.next().unwrap_or_default()] }
    }
}

impl Object for Group {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Seq
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        let at = match key.as_str() {
            Some("grouper") => 0,
            Some("list") => 1,
            Some(_) => return None,
            None => key.as_usize()?,
        };
        self.parts.get(at).cloned()
    }

    fn enumerate(self: &Arc<Self>) -> minijinja::value::Enumerator {
        minijinja::value::Enumerator::Seq(self.parts.len())
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Value::from(Tuple::from(&self.parts[..])))
    }
}
