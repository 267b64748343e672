//! `generation_config.json`: the tokens that end a text, and the settings that its makers recommend for choosing
//! tokens.

use super::keys::{MAX_FILE, bad};
use crate::sampling::Sampling;
use crate::{Result, defaults, json};
use serde::Deserialize;
use serde_json::Value;

/// The values that are used of a `generation_config.json`.
#[derive(Clone, Debug, PartialEq)]
pub struct Generation {
    /// Tokens that end a text.
    pub eos: Vec<u32>,
    /// How tokens are chosen if the caller does not say: `temperature`, `top_k`, `top_p`, `min_p` and
    /// `repetition_penalty` of the file, and [`defaults::SAMPLING`] for those that it does not name.
    ///
    /// The makers of a model measured it with these values, and the chats of other tools use them. For example, Qwen3
    /// asks for 0.6, 20 and 0.95, and repeats itself with greedy choice. `do_sample` is not used, as in other servers:
    /// a caller who wants the most probable token asks for temperature 0.
    pub sampling: Sampling,
}

impl Default for Generation {
    fn default() -> Self {
        Generation { eos: vec![], sampling: defaults::SAMPLING }
    }
}

#[derive(Deserialize)]
struct File {
    eos_token_id: Option<Ids>,
    temperature: Option<Value>,
    top_k: Option<Value>,
    top_p: Option<Value>,
    min_p: Option<Value>,
    repetition_penalty: Option<Value>,
}

/// One id or several. Some files say -1 if there is no such token.
#[derive(Deserialize)]
#[serde(untagged)]
enum Ids {
    One(i64),
    Several(Vec<i64>),
}

impl Generation {
    /// Reads the file.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) if the file is not JSON, if its ids are not numbers, or if a sampling
    /// value is not a number in its range.
    pub fn read(json: &[u8]) -> Result<Generation> {
        let bad = |why: String| bad("generation_config.json", why);
        if json.len() > MAX_FILE {
            return Err(bad(format!("{} bytes are more than any such file has", json.len())));
        }
        let file: File = serde_json::from_slice(&json::plain(json)).map_err(|e| bad(e.to_string()))?;
        let ids = match file.eos_token_id {
            None => vec![],
            Some(Ids::One(id)) => vec![id],
            Some(Ids::Several(ids)) => ids,
        };
        let number = |name: &str, value: &Option<Value>, usual: f64| match value {
            None => Ok(usual),
            Some(value) => value.as_f64().ok_or_else(|| bad(format!("`{name}` is not a number"))),
        };
        let usual = defaults::SAMPLING;
        let sampling = Sampling {
            temperature: number("temperature", &file.temperature, usual.temperature.into())? as f32,
            // -1 means "off" for some tools; here 0 does.
            top_k: number("top_k", &file.top_k, usual.top_k.into())?.max(0.0) as u32,
            top_p: number("top_p", &file.top_p, usual.top_p.into())? as f32,
            min_p: number("min_p", &file.min_p, usual.min_p.into())? as f32,
            repetition_penalty: number("repetition_penalty", &file.repetition_penalty, usual.repetition_penalty.into())?
                as f32,
            seed: usual.seed,
        };
        sampling.validate().map_err(|error| bad(error.to_string()))?;
        Ok(Generation { eos: ids.into_iter().filter_map(|id| u32::try_from(id).ok()).collect(), sampling })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Generation> {
        Generation::read(json.as_bytes())
    }

    #[test]
    fn what_the_file_does_not_name_is_usual() {
        assert_eq!(read("{}").unwrap(), Generation::default());
        assert_eq!(
            read(r#"{"temperature": null, "eos_token_id": null, "do_sample": false}"#).unwrap(),
            Generation::default()
        );
        let qwen = read(r#"{"temperature": 0.6, "top_k": 20, "top_p": 0.95, "eos_token_id": [5, -1, 6]}"#).unwrap();
        let sampling = Sampling { temperature: 0.6, top_k: 20, top_p: 0.95, ..defaults::SAMPLING };
        assert_eq!(qwen, Generation { eos: vec![5, 6], sampling });
        let off = read(r#"{"top_k": -1, "min_p": 0.1, "repetition_penalty": 1.2, "eos_token_id": 7}"#).unwrap();
        let sampling = Sampling { top_k: 0, min_p: 0.1, repetition_penalty: 1.2, ..defaults::SAMPLING };
        assert_eq!(off, Generation { eos: vec![7], sampling });
    }

    #[test]
    fn what_cannot_be_used_is_refused_by_its_name() {
        for (json, word) in [
            (r#"{"temperature": "hot"}"#, "temperature"),
            (r#"{"temperature": -1}"#, "temperature"),
            (r#"{"top_p": 2}"#, "top_p"),
            (r#"{"eos_token_id": "</s>"}"#, "generation_config.json"),
            ("[", "generation_config.json"),
        ] {
            assert!(read(json).unwrap_err().to_string().contains(word), "{json}");
        }
    }
}
