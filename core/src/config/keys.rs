//! Typed, range-checked access to the keys of a `config.json`.

use std::fmt::Display;
use std::ops::RangeInclusive;

use serde_json::{Map, Value};

use crate::checkpoint::shown;
use crate::{Error, Result};

/// Longest configuration file in bytes.
pub(super) const MAX_FILE: usize = 1 << 20;
pub(super) const MAX_LAYERS: u32 = 1024;
pub(super) const MAX_HEADS: u32 = 1024;
pub(super) const MAX_VOCAB: u32 = 1 << 24;
pub(super) const MAX_POSITIONS: u32 = 1 << 24;
pub(super) const MAX_HIDDEN: u32 = 1 << 16;
/// Largest inner width of a block: FFN width, `d_inner`.
pub(super) const MAX_WIDTH: u32 = 1 << 18;
pub(super) const MAX_HEAD_DIM: u32 = 256;

/// Keys of `rope_parameters` and `rope_scaling` that describe no scaling.
const ROTARY: [&str; 4] = ["rope_type", "type", "rope_theta", "orig_max_position_embeddings"];

/// The model families that nemoflash runs.
#[derive(Clone, Copy)]
pub(super) enum Architecture {
    NemotronFlash,
    Qwen3,
}

struct Family {
    architecture: Architecture,
    /// Its name in `architectures`.
    class: &'static str,
    /// Its name in `model_type`.
    model_type: &'static str,
}

const FAMILIES: [Family; 2] = [
    Family {
        architecture: Architecture::NemotronFlash,
        class: "NemotronFlashForCausalLM",
        model_type: "nemotron_flash",
    },
    Family { architecture: Architecture::Qwen3, class: "Qwen3ForCausalLM", model_type: "qwen3" },
];

/// The file's keys. A key with the value `null` counts as absent everywhere.
pub(super) struct Keys(pub(super) Map<String, Value>);

impl Keys {
    /// The value of a key, or of a path into objects, for example `rope_parameters.rope_theta`.
    fn get(&self, path: &str) -> Option<&Value> {
        let mut keys = path.split('.');
        let first = self.0.get(keys.next()?)?;
        keys.try_fold(first, |value, key| value.get(key)).filter(|v| !v.is_null())
    }

    fn typed<'a, T>(&'a self, key: &str, what: &str, read: impl Fn(&'a Value) -> Option<T>) -> Result<Option<T>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        read(value).map(Some).ok_or_else(|| bad(key, format!("{} is not {what}", short(value))))
    }

    pub(super) fn flag(&self, key: &str) -> Result<Option<bool>> {
        self.typed(key, "true or false", Value::as_bool)
    }

    pub(super) fn text(&self, key: &str) -> Result<Option<&str>> {
        self.typed(key, "a string", Value::as_str)
    }

    pub(super) fn integer(&self, key: &str, range: RangeInclusive<u32>) -> Result<Option<u32>> {
        let what = format!("a whole number from {} to {}", range.start(), range.end());
        self.typed(key, &what, |v| whole(v, &range))
    }

    pub(super) fn number(&self, key: &str, range: RangeInclusive<f64>) -> Result<Option<f64>> {
        let what = format!("a number from {} to {}", range.start(), range.end());
        self.typed(key, &what, |v| v.as_f64().filter(|x| range.contains(x)))
    }

    pub(super) fn list(&self, key: &str, most: usize) -> Result<Option<&[Value]>> {
        let what = format!("a list of at most {most}");
        self.typed(key, &what, |v| v.as_array().filter(|a| a.len() <= most).map(Vec::as_slice))
    }

    pub(super) fn object(&self, key: &str) -> Result<Option<&Map<String, Value>>> {
        self.typed(key, "an object", Value::as_object)
    }

    /// A size for which zero and negative values mean the default.
    pub(super) fn size(&self, key: &str) -> Result<Option<u32>> {
        let read = |v: &Value| if v.as_i64()? <= 0 { Some(None) } else { u32::try_from(v.as_u64()?).ok().map(Some) };
        Ok(self.typed(key, "a whole number below 2^32", read)?.flatten())
    }

    /// A dimension that is required. It comes from the file, or else from the tensors' shapes.
    pub(super) fn dim(&self, key: &str, range: RangeInclusive<u32>, by_shapes: Option<u64>) -> Result<u32> {
        if let Some(value) = self.integer(key, range.clone())? {
            return Ok(value);
        }
        let value = by_shapes.ok_or_else(|| missing(key))?;
        let fitting = u32::try_from(value).ok().filter(|v| range.contains(v));
        fitting.ok_or_else(|| bad(key, format!("missing, and the shapes of the tensors would give {value}")))
    }

    /// One token or a list of tokens. Ids beyond the vocabulary are left out, because they can never be chosen: many
    /// files say -1, or name a token of a larger vocabulary.
    pub(super) fn tokens(&self, key: &str, vocab_size: u32) -> Result<Vec<u32>> {
        let read = |v: &Value| match v.as_array() {
            Some(list) if list.len() > 64 => None,
            Some(list) => list.iter().map(Value::as_i64).collect(),
            None => v.as_i64().map(|token| vec![token]),
        };
        let tokens = self.typed(key, "a token's number, or a list of at most 64", read)?.unwrap_or_default();
        let known = |&token: &u32| token < vocab_size;
        Ok(tokens.into_iter().filter_map(|token| u32::try_from(token).ok()).filter(known).collect())
    }

    /// A key about rotary positions, and where it was found: at the top of the file, in `rope_parameters` (transformers
    /// 5), or in `rope_scaling` (older versions). If several places disagree, that is an error.
    pub(super) fn rotary<T: PartialEq + Display>(
        &self,
        key: &str,
        read: impl Fn(&str) -> Result<Option<T>>,
    ) -> Result<Option<(String, T)>> {
        let mut found: Option<(String, T)> = None;
        for place in ["", "rope_parameters.", "rope_scaling."] {
            let path = format!("{place}{key}");
            let Some(value) = read(&path)? else { continue };
            match &found {
                Some((other, known)) if *known != value => {
                    return Err(bad(&path, format!("{value}, but {other} says {known}")));
                }
                _ => found = Some((path, value)),
            }
        }
        Ok(found)
    }

    /// The kind of scaling of the rotary positions, and where it was found: `rope_type`, or `type` in older files. An
    /// object that has numbers of a scaling but names no kind is an error, because the kind would be a guess.
    pub(super) fn rope_type(&self) -> Result<Option<(String, &str)>> {
        for key in ["rope_parameters", "rope_scaling"] {
            let Some(object) = self.object(key)? else { continue };
            let has_kind = ["rope_type", "type"].iter().any(|key| object.get(*key).is_some_and(|v| !v.is_null()));
            let number = object.keys().find(|key| !ROTARY.contains(&key.as_str()));
            if let Some(number) = number.filter(|_| !has_kind) {
                return Err(bad(key, format!("it has `{}` and no `rope_type`", shown(number))));
            }
        }
        let kind = self.rotary("rope_type", |path| self.text(path))?;
        let old = self.rotary("type", |path| if path == "type" { Ok(None) } else { self.text(path) })?;
        match (&kind, &old) {
            (Some((_, kind)), Some((path, old))) if kind != old => {
                Err(bad(path, format!("{:?}, but `rope_type` is {:?}", shown(old), shown(kind))))
            }
            _ => Ok(kind.or(old)),
        }
    }

    /// Number of key and value heads. Each of them is shared by the same number of query heads.
    pub(super) fn kv_heads(&self, heads: u32) -> Result<u32> {
        let kv_heads = self.dim("num_key_value_heads", 1..=heads, None)?;
        if !heads.is_multiple_of(kv_heads) {
            return Err(bad("num_key_value_heads", format!("{heads} query heads cannot share {kv_heads}")));
        }
        Ok(kv_heads)
    }

    /// `architectures` and `model_type` must agree. One of them alone is enough.
    pub(super) fn architecture(&self) -> Result<Architecture> {
        let class = match self.list("architectures", 16)? {
            Some([]) | None => None,
            Some([first, ..]) => Some(first.as_str().unwrap_or_default()),
        };
        let family = self.text("model_type")?;
        match (class, family) {
            (None, None) => Err(missing("architectures")),
            (None, Some(family)) => Ok(known("model_type", family, |known| known.model_type)?.architecture),
            (Some(class), family) => {
                let known = known("architectures", class, |known| known.class)?;
                match family.filter(|family| *family != known.model_type) {
                    Some(other) => Err(unsupported("model_type", other, &format!("{:?}", known.model_type))),
                    None => Ok(known.architecture),
                }
            }
        }
    }
}

/// The family whose `name` is the value of `field`.
fn known(field: &str, value: &str, name: fn(&Family) -> &'static str) -> Result<&'static Family> {
    FAMILIES.iter().find(|family| name(family) == value).ok_or_else(|| {
        let names: Vec<String> = FAMILIES.iter().map(|family| format!("{:?}", name(family))).collect();
        unsupported(field, value, &names.join(", "))
    })
}

fn whole(value: &Value, range: &RangeInclusive<u32>) -> Option<u32> {
    value.as_u64().and_then(|n| u32::try_from(n).ok()).filter(|n| range.contains(n))
}

/// Checks that kernels support a dimension: rows of whole 16 bytes, and heads that fit into a workgroup.
pub(super) fn fits(field: &str, what: &str, value: u32, step: u32, most: u32) -> Result<u32> {
    if value == 0 || value > most || !value.is_multiple_of(step) {
        let why = format!("{what} of {value} is not supported: it must be a multiple of {step}, from {step} to {most}");
        return Err(bad(field, why));
    }
    Ok(value)
}

pub(super) fn bad(field: &str, why: impl Into<String>) -> Error {
    Error::Config { field: shown(field), why: why.into() }
}

pub(super) fn missing(field: &str) -> Error {
    bad(field, "missing")
}

pub(super) fn unsupported(field: &str, value: &str, known: &str) -> Error {
    bad(field, format!("{:?} is not supported; known are {known}", shown(value)))
}

/// A value as a short text that is safe to print.
pub(super) fn short(value: &Value) -> String {
    match value {
        Value::Array(list) => format!("a list of {}", list.len()),
        Value::Object(_) => "an object".into(),
        other => shown(&other.to_string()),
    }
}
