//! A model together with the device that holds its weights.

use crate::caps::Caps;
use crate::checkpoint::Header;
use crate::config::Config;
use crate::exec::Exec;
use crate::loader::LoadOptions;
use crate::model::Model;
use crate::place::Places;
use crate::{Error, Result};

/// A model and the device that holds its weights. [`Engine::new`](crate::Engine::new) takes both as one, so that a
/// model never runs on a device that it was not loaded onto.
#[derive(Debug)]
pub struct Loaded {
    pub(crate) exec: Exec,
    pub(crate) model: Model,
    pub(crate) notes: Vec<String>,
}

impl Loaded {
    /// Prepares a dry run: the model on a device with the limits and features `caps` that does not exist. Nothing is
    /// allocated and nothing is computed. An engine made of it tells the memory
    /// ([`explain`](crate::Engine::explain)) and the kernels ([`Dry`](crate::Dry)) that the real one will take.
    ///
    /// With the `headers` of all files of the checkpoint, the answer is exact. Without any, the shapes are those of
    /// `config.json` alone, and all matrices of a quantised checkpoint count as bf16.
    ///
    /// # Errors
    /// [`Error::Config`], [`Error::Tensors`] if the headers are not those of this model, [`Error::Parameter`] for a
    /// quantisation that does not exist, [`Error::Limit`] if such a device cannot hold a line of a matrix.
    pub async fn dry_run(caps: &Caps, config_json: &[u8], headers: &[Header], options: LoadOptions) -> Result<Loaded> {
        let mut exec = Exec::dry(caps);
        let (config, places) = resolve(config_json, headers, options)?;
        let (model, _) = Model::alloc(&mut exec, config, places).await?;
        Ok(Loaded { exec, model, notes: vec![] })
    }

    /// The model.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// What is worth to be told of the checkpoint, a sentence each: tensors that were left out, a head that is not the
    /// embedding though `config.json` says so.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The device that holds its weights.
    pub fn exec(&self) -> &Exec {
        &self.exec
    }
}

/// What a `config.json` and the headers of all files describe, and how each matrix is kept on the device. Without
/// headers, `config.json` alone counts.
///
/// # Errors
/// As [`Loaded::dry_run`], but for [`Error::Limit`].
pub(crate) fn resolve(config_json: &[u8], headers: &[Header], options: LoadOptions) -> Result<(Config, Places)> {
    if let Some(quant) = options.quantise {
        quant.validate()?;
    }
    let mut config = Config::resolve(config_json, headers)?;
    if !headers.is_empty() {
        config.check(headers)?;
    }
    config.divide_logits &= !options.keep_logits;
    let places = Places::new(config.stored(headers, options.quantise));
    if options.quantise.is_some() && places.any_packed() {
        let why = "the checkpoint is quantised already. Load it as it is".into();
        return Err(Error::Parameter { name: "weights", why });
    }
    Ok((config, places))
}
