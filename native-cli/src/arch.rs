//! `--arch`: the shape of a model with random weights.

use crate::source;
use std::path::Path;

/// A name and a `config.json`.
#[derive(Clone, Debug)]
pub struct Arch {
    /// The name of the published shape, or the file's name without its extension.
    pub name: String,
    /// The text of `config.json`.
    pub config: Vec<u8>,
    /// The value of the option.
    pub given: String,
}

/// Reads the option: the name of a published shape, or the path of a `.json` file that describes one.
///
/// # Errors
/// If there is no such shape and no such file.
pub fn arch(text: &str) -> Result<Arch, String> {
    if let Some((_, config)) = nemoflash::ARCHS.iter().find(|(name, _)| *name == text) {
        return Ok(Arch { name: text.into(), config: config.as_bytes().to_vec(), given: text.into() });
    }
    let path = Path::new(text);
    if path.extension().is_none_or(|ending| ending != "json") {
        let names = nemoflash::ARCHS.map(|(name, _)| name).join(", ");
        return Err(format!("neither a published shape ({names}) nor a .json file"));
    }
    if !path.is_file() {
        return Err("no such file. Give the path of a config.json".into());
    }
    let config = source::read(path).map_err(|e| format!("{e:#}"))?;
    nemoflash::Config::parse(&config).map_err(|error| match error {
        nemoflash::Error::Config { field, why } => {
            format!("`{field}`: {why}. The file describes a model as config.json does; models/fables/config.json is an example")
        }
        error => error.to_string(),
    })?;
    let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    Ok(Arch { name, config, given: text.into() })
}
