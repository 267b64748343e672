//! The small components of `tokenizer.json`. Only the components listed here are supported; any other is an error that
//! names it.

use serde_json::{Value, value::RawValue};
use tokenizers::NormalizedString;

use super::{
    bytes::Pieces,
    split::{Keep, Splitter},
    wrong::tokenizer as bad,
};
use crate::Result;

/// Longest component in bytes. Published ones have a few hundred.
const MAX_COMPONENT: usize = 64 << 10;
/// The most steps of a sequence.
const MAX_STEPS: usize = 8;
/// The most ids that a post-processor puts before or after a text.
const MAX_AFFIX: usize = 64;
/// The split pattern of GPT-2, which `ByteLevel` uses.
const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";

/// A Unicode normalisation form.
#[derive(Clone, Copy)]
pub(super) enum Form {
    Nfc,
    Nfd,
    Nfkc,
    Nfkd,
}

/// `text` in these normalisation forms, applied one after the other.
pub(super) fn normalize(forms: &[Form], text: &str) -> Result<NormalizedString> {
    let mut text = NormalizedString::from(text);
    for form in forms {
        match form {
            Form::Nfc => text.nfc(),
            Form::Nfd => text.nfd(),
            Form::Nfkc => text.nfkc(),
            Form::Nfkd => text.nfkd(),
        };
    }
    Ok(text)
}

pub(super) fn normalizer(raw: Option<&RawValue>) -> Result<Vec<Form>> {
    let name = "normalizer";
    let mut forms = Vec::new();
    for part in sequence(name, "normalizers", raw)? {
        forms.push(match kind(&part) {
            "NFC" => Form::Nfc,
            "NFD" => Form::Nfd,
            "NFKC" => Form::Nfkc,
            "NFKD" => Form::Nfkd,
            _ => return Err(unsupported(name, &part)),
        });
    }
    Ok(forms)
}

/// Reads a pre-tokenizer: any number of `Split`, then `ByteLevel`.
pub(super) fn pre_tokenizer(raw: Option<&RawValue>) -> Result<Splitter> {
    let name = "pre_tokenizer";
    let mut splitter = Splitter::default();
    let mut parts = sequence(name, "pretokenizers", raw)?;
    if let Some(other) = parts.iter().find(|p| !matches!(kind(p), "Split" | "ByteLevel")) {
        return Err(unsupported(name, other));
    }
    let last = parts.pop().filter(|p| kind(p) == "ByteLevel");
    let last = last.ok_or_else(|| bad("pre_tokenizer: ByteLevel is not its last step; this is not supported"))?;
    for part in parts {
        if kind(&part) == "ByteLevel" {
            return Err(bad("pre_tokenizer: ByteLevel before another step is not supported"));
        }
        let pattern = &part["pattern"];
        let pattern = match (pattern["Regex"].as_str(), pattern["String"].as_str()) {
            (Some(regex), None) => regex.into(),
            (None, Some(text)) => fancy_regex::escape(text),
            _ => return Err(bad("pre_tokenizer: Split: `pattern` is neither a Regex nor a String")),
        };
        let keep = match (part["behavior"].as_str(), flag(name, &part, "invert", false)?) {
            (Some("Isolated"), _) => Keep::All,
            (Some("Removed"), false) => Keep::Gaps,
            (Some("Removed"), true) => Keep::Matches,
            _ => return Err(bad(format!("pre_tokenizer: Split: behavior {} is not supported", part["behavior"]))),
        };
        splitter.push(&pattern, keep)?;
    }
    let pattern = flag(name, &last, "use_regex", true)?.then_some(GPT2);
    splitter.byte_level(flag(name, &last, "add_prefix_space", true)?, pattern)?;
    Ok(splitter)
}

/// The ids that the post-processor puts before and after a single text.
pub(super) fn post_processor(raw: Option<&RawValue>, pieces: &Pieces) -> Result<(Vec<u32>, Vec<u32>)> {
    let name = "post_processor";
    let (mut prefix, mut suffix) = (Vec::new(), Vec::new());
    for part in sequence(name, "processors", raw)? {
        match kind(&part) {
            // It only changes offsets, which are not used here.
            "ByteLevel" => continue,
            "TemplateProcessing" => {}
            _ => return Err(unsupported(name, &part)),
        }
        let (mut before, mut after, mut texts) = (Vec::new(), Vec::new(), 0);
        for item in part["single"].as_array().into_iter().flatten() {
            if item["Sequence"]["id"] == "A" {
                texts += 1;
                continue;
            }
            let token =
                item["SpecialToken"]["id"].as_str().ok_or_else(|| bad("post_processor: `single` is malformed"))?;
            let ids = part["special_tokens"][token]["ids"].as_array();
            for id in ids.ok_or_else(|| bad(format!("post_processor: special token {token:?} has no ids")))? {
                let known = id.as_u64().and_then(|id| u32::try_from(id).ok()).filter(|&id| pieces.has(id));
                let id = known.ok_or_else(|| bad(format!("post_processor: no token has id {id} of {token:?}")))?;
                if texts == 0 { before.push(id) } else { after.push(id) }
            }
        }
        if texts != 1 {
            return Err(bad(format!("post_processor: `single` takes the text {texts} times instead of once")));
        }
        // Each processor wraps the result of the previous ones.
        prefix.splice(0..0, before);
        suffix.extend(after);
    }
    if prefix.len().max(suffix.len()) > MAX_AFFIX {
        return Err(bad(format!("post_processor: it adds more than {MAX_AFFIX} tokens")));
    }
    Ok((prefix, suffix))
}

pub(super) fn decoder(raw: Option<&RawValue>) -> Result<()> {
    let name = "decoder";
    match sequence(name, "decoders", raw)?.as_slice() {
        [part] if kind(part) == "ByteLevel" => Ok(()),
        [part] => Err(unsupported(name, part)),
        parts => Err(bad(format!("decoder: {} steps are not supported, only ByteLevel alone is", parts.len()))),
    }
}

/// The parts of a component: those of a `Sequence` (not nested), the component itself, or none.
fn sequence(name: &str, list: &str, raw: Option<&RawValue>) -> Result<Vec<Value>> {
    let raw = raw.map_or("null", RawValue::get);
    if raw.len() > MAX_COMPONENT {
        return Err(bad(format!("{name}: {} bytes are more than {MAX_COMPONENT}", raw.len())));
    }
    let mut value: Value = serde_json::from_str(raw).map_err(|e| bad(format!("{name}: {e}")))?;
    if value.is_null() {
        return Ok(Vec::new());
    }
    if kind(&value) != "Sequence" {
        return Ok(vec![value]);
    }
    match value.get_mut(list).map(Value::take) {
        Some(Value::Array(parts)) if parts.len() <= MAX_STEPS => Ok(parts),
        Some(Value::Array(_)) => Err(bad(format!("{name}: a Sequence has more than {MAX_STEPS} steps"))),
        _ => Err(bad(format!("{name}: Sequence: `{list}` is not a list"))),
    }
}

fn kind(part: &Value) -> &str {
    part["type"].as_str().unwrap_or("(no type)")
}

fn unsupported(name: &str, part: &Value) -> crate::Error {
    bad(format!("{name}: {} is not supported", kind(part)))
}

fn flag(name: &str, part: &Value, field: &str, default: bool) -> Result<bool> {
    match &part[field] {
        Value::Null => Ok(default),
        value => value.as_bool().ok_or_else(|| bad(format!("{name}: `{field}` is not true or false"))),
    }
}
