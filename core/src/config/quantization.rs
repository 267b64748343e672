//! The `quantization` block that MLX writes into config.json.

use super::keys::{Keys, bad, short};
use crate::Result;
use crate::format::packed::{Mode, Packed};
use serde_json::{Map, Value};
use std::collections::HashMap;

/// Most modules that may have their own quantisation.
const MAX_MODULES: usize = 100_000;

/// How the matrices of a checkpoint are quantised, according to config.json. It does not say which matrices are
/// quantised: those with a tensor of scales beside them.
#[derive(Clone, Debug, PartialEq)]
pub struct Quantization {
    /// How all matrices without an entry of their own are quantised.
    all: Packed,
    /// How single modules are quantised, by the name of the matrix without `.weight`.
    modules: HashMap<String, Packed>,
}

impl Quantization {
    /// For a checkpoint whose quantised matrices are integers of `bits` bits, with a scale and a bias for each group.
    pub fn new(bits: u32, group: u32) -> Quantization {
        Quantization { all: Packed::affine(bits, group), modules: HashMap::new() }
    }

    /// How a matrix is packed, if it is quantised.
    pub(crate) fn of(&self, name: &str) -> Packed {
        let module = name.strip_suffix(".weight").unwrap_or(name);
        *self.modules.get(module).unwrap_or(&self.all)
    }
}

pub(super) fn read(keys: &Keys) -> Result<Option<Quantization>> {
    let key =
        if keys.0.get("quantization").is_some_and(|v| !v.is_null()) { "quantization" } else { "quantization_config" };
    let block = match keys.0.get(key) {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Object(block)) => block,
        Some(other) => return Err(bad(key, format!("{} is not an object", short(other)))),
    };
    if let Some(method) = block.get("quant_method") {
        let why = format!("{} is not supported; known is the layout of MLX: group_size and bits", short(method));
        return Err(bad(&format!("{key}.quant_method"), why));
    }
    let all = scheme(key, block)?;
    if block.len() > MAX_MODULES {
        return Err(bad(key, format!("{} entries; at most {MAX_MODULES} are possible", block.len())));
    }
    let mut modules = HashMap::new();
    for (name, value) in block {
        if let Value::Object(own) = value {
            modules.insert(name.clone(), scheme(&format!("{key}.{name}"), own)?);
        }
    }
    Ok(Some(Quantization { all, modules }))
}

/// Reads one block. mlx-lm leaves out the mode if it is affine, and writes `null` for values that follow from the mode.
fn scheme(key: &str, block: &Map<String, Value>) -> Result<Packed> {
    let field = |name: &str| format!("{key}.{name}");
    let given = |name: &str| block.get(name).filter(|value| !value.is_null());
    let mode = match given("mode") {
        None => Mode::Affine,
        Some(value) => Mode::ALL.into_iter().find(|mode| value.as_str() == Some(mode.name())).ok_or_else(|| {
            let known = Mode::ALL.map(Mode::name);
            bad(&field("mode"), format!("{} is not supported; known are {known:?}", short(value)))
        })?,
    };
    let number = |name: &str, (known, usual): (&[u32], u32)| match given(name) {
        None => Ok(usual),
        Some(value) => {
            let found = value.as_u64().and_then(|n| u32::try_from(n).ok()).filter(|n| known.contains(n));
            let why = || format!("{} is not supported in mode {}; known are {known:?}", short(value), mode.name());
            found.ok_or_else(|| bad(&field(name), why()))
        }
    };
    Ok(Packed { mode, bits: number("bits", mode.bits())?, group: number("group_size", mode.groups())? })
}
