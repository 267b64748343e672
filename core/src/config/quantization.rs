//! The `quantization` block that MLX writes into config.json.

use super::keys::{Keys, bad, missing, short};
use crate::Result;
use crate::format::Quant;
use serde_json::{Map, Value};
use std::collections::HashMap;

/// Most modules that may have their own quantisation.
const MAX_MODULES: usize = 100_000;

/// How the matrices of a checkpoint are quantised, according to config.json. It does not say which ones are; those
/// are the tensors with scales beside them.
#[derive(Clone, Debug, PartialEq)]
pub struct Quantization {
    /// Bits and group size of all matrices without an entry of their own. The type of the scales is not known here.
    all: Quant,
    /// Bits and group size of single modules, by the name of the matrix without `.weight`.
    modules: HashMap<String, Quant>,
}

impl Quantization {
    /// The value for a checkpoint whose matrices are all quantised in the same way.
    pub fn new(all: Quant) -> Quantization {
        Quantization { all, modules: HashMap::new() }
    }

    /// How a matrix is quantised, if it is quantised at all.
    pub(crate) fn of(&self, name: &str) -> Quant {
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

fn scheme(key: &str, block: &Map<String, Value>) -> Result<Quant> {
    let field = |name: &str| format!("{key}.{name}");
    match block.get("mode") {
        None | Some(Value::Null) => {}
        Some(Value::String(mode)) if mode == "affine" => {}
        Some(other) => {
            return Err(bad(&field("mode"), format!("{} is not supported; known is \"affine\"", short(other))));
        }
    }
    let number = |name: &str, known: &[u32]| {
        let value = block.get(name).filter(|v| !v.is_null()).ok_or_else(|| missing(&field(name)))?;
        let found = value.as_u64().and_then(|n| u32::try_from(n).ok()).filter(|n| known.contains(n));
        found.ok_or_else(|| bad(&field(name), format!("{} is not supported; known are {known:?}", short(value))))
    };
    let (bits, group) = (number("bits", Quant::BITS)?, number("group_size", Quant::GROUPS)?);
    Ok(Quant { bits, group, scale_f16: false })
}
