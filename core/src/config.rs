//! Reads `config.json` into a description of the model that does not depend on how the file writes it (spec sections 1
//! and 3).
//!
//! The file is not trusted: every value that is used is range-checked, and an [`Error::Config`] names the first invalid
//! one. Keys that are not used are ignored.

mod generation;
mod keys;
mod nemotron_flash;
mod quantization;
mod qwen3;
mod shapes;
mod types;

use serde_json::Value;

use crate::checkpoint::{Header, shown};
use crate::json;
use crate::{Error, Result, defaults};
pub use generation::Generation;
use keys::{Architecture, Keys, MAX_FILE, bad};
pub use quantization::Quantization;
pub(crate) use shapes::Shapes;
pub use types::*;

impl Config {
    /// Reads a `config.json` that states every dimension.
    ///
    /// # Errors
    /// [`Error::Config`] names the first field that is missing, of the wrong type, out of range
    /// or not supported, or `(file)` where the text is not a JSON object.
    pub fn parse(json: &[u8]) -> Result<Config> {
        Self::resolve(json, &[])
    }

    /// Reads a `config.json`. Dimensions that it does not state are taken from the shapes of the checkpoint's tensors
    /// (spec 1.1, "derive"). Dimensions that it does state are not compared with the tensors here; [`Config::check`]
    /// does that.
    ///
    /// # Errors
    /// As [`Config::parse`].
    pub fn resolve(json: &[u8], tables: &[Header]) -> Result<Config> {
        if json.len() > MAX_FILE {
            return Err(bad("(file)", format!("{} bytes; at most {MAX_FILE} are possible", json.len())));
        }
        let value = serde_json::from_slice(&json::plain(json));
        let Value::Object(map) = value.map_err(|e| bad("(file)", shown(&e.to_string())))? else {
            return Err(bad("(file)", "not a JSON object"));
        };
        let keys = Keys(map);
        let quantization = quantization::read(&keys)?;
        let shapes = Shapes::of(tables, quantization.as_ref());
        let config = match keys.architecture()? {
            // A new architecture needs one arm here, a file like qwen3.rs with its names, and a line in keys.rs.
            Architecture::NemotronFlash => nemotron_flash::config(&keys, &shapes),
            Architecture::Qwen3 => qwen3::config(&keys, &shapes),
        };
        Ok(Config { quantization, ..config? })
    }

    /// Tokens of text that a sequence may have: `wanted`, or [`defaults::CONTEXT`] if that is not more than the model
    /// supports.
    ///
    /// # Errors
    /// [`Error::Parameter`] for more than the model supports.
    pub fn context(&self, wanted: Option<u32>) -> Result<u32> {
        let most = self.max_position_embeddings.saturating_sub(self.meta_tokens).max(1);
        match wanted {
            None => Ok(defaults::CONTEXT.min(most)),
            Some(context) if context <= most => Ok(context),
            Some(context) => {
                let (all, meta) = (self.max_position_embeddings, self.meta_tokens);
                let why = format!(
                    "{context} is more than {most}: this model is made for {all} tokens, of which {meta} are meta tokens"
                );
                Err(Error::Parameter { name: "context", why })
            }
        }
    }
}
