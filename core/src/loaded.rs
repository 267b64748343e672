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
    /// Prepares a dry run: the model on a device with the limits and features `caps`, without that device. Nothing is
    /// allocated or computed. An engine on the result tells the memory ([`explain`](crate::Engine::explain)) and the
    /// kernels ([`Dry`](crate::Dry)) that a real engine would need.
    ///
    /// With the `headers` of all files of the checkpoint, the answer is exact. Without headers, the shapes are those of
    /// `config.json`, and all matrices of a quantised checkpoint are taken to be bf16.
    ///
    /// # Errors
    /// [`Error::Config`], [`Error::Tensors`] if the headers do not fit `config.json`, [`Error::Parameter`] for a
    /// quantisation that does not exist, [`Error::Limit`] if such a device cannot hold one row of a matrix.
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

    /// What the user should know about the checkpoint, one sentence each: which tensors were left out, or that the head
    /// is not the embedding although `config.json` says so.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The device that holds its weights.
    pub fn exec(&self) -> &Exec {
        &self.exec
    }
}

/// The configuration that `config.json` and the headers of all files describe, and how each matrix is stored on the
/// device. Without headers, `config.json` alone counts.
///
/// # Errors
/// As [`Loaded::dry_run`], except for [`Error::Limit`].
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
