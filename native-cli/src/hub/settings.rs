//! The environment variables that all tools of the hub share, read as huggingface_hub 2.4 reads them.
//!
//! One rule differs: here an empty variable counts as unset. In huggingface_hub, an empty variable would make the current
//! folder the cache.

use super::expand;
use anyhow::{Result, anyhow, bail};
use std::io::ErrorKind;
use std::path::PathBuf;
use std::time::Duration;
use std::{env, fs};

/// The hub, unless `HF_ENDPOINT` names another address.
pub const HUB: &str = "https://huggingface.co";

/// The settings in the environment.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `HF_HUB_CACHE`, or the older `HUGGINGFACE_HUB_CACHE`, or `hub` in `HF_HOME`.
    pub cache: PathBuf,
    /// `HF_ENDPOINT`, with no slash at its end.
    pub endpoint: String,
    /// The variable that forbids connections: `HF_HUB_OFFLINE`, or `TRANSFORMERS_OFFLINE` if the former is unset.
    pub offline: Option<&'static str>,
    /// `HF_HUB_DOWNLOAD_TIMEOUT`: the longest time without a byte from the server.
    pub timeout: Duration,
    /// `HF_HUB_DISABLE_SYMLINKS`: snapshots hold the files themselves, and not links.
    pub no_links: bool,
    /// `HF_TOKEN_PATH`, or `token` in `HF_HOME`: the file that a login writes.
    token: PathBuf,
}

impl Settings {
    /// Reads the environment.
    ///
    /// # Errors
    /// If a value cannot be used.
    pub fn read() -> Result<Settings> {
        let home = home()?;
        let endpoint = text("HF_ENDPOINT").unwrap_or_else(|| HUB.into());
        let endpoint = endpoint.trim_end_matches('/').to_owned();
        if !["https://", "http://"].iter().any(|scheme| endpoint.starts_with(scheme)) {
            bail!("HF_ENDPOINT is `{endpoint}`. It must begin with https:// or http://; unset it for {HUB}");
        }
        let timeout = match text("HF_HUB_DOWNLOAD_TIMEOUT") {
            None => Duration::from_secs(10),
            Some(value) => match value.parse() {
                Ok(0) => Duration::from_secs(10),
                Ok(seconds @ 1..=86_400) => Duration::from_secs(seconds),
                _ => bail!("HF_HUB_DOWNLOAD_TIMEOUT is `{value}`. It is a number of seconds, 1 to 86400, or 0 for 10"),
            },
        };
        let cache = match path("HF_HUB_CACHE")? {
            Some(cache) => cache,
            None => path("HUGGINGFACE_HUB_CACHE")?.unwrap_or_else(|| home.join("hub")),
        };
        // The first one that is set decides, whatever it says.
        let offline = ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"].into_iter().find_map(|name| Some((name, text(name)?)));
        Ok(Settings {
            cache,
            endpoint,
            offline: offline.and_then(|(name, value)| is_true(&value).then_some(name)),
            timeout,
            no_links: text("HF_HUB_DISABLE_SYMLINKS").is_some_and(|value| is_true(&value)),
            token: path("HF_TOKEN_PATH")?.unwrap_or_else(|| home.join("token")),
        })
    }

    /// The access token: `HF_TOKEN`, the older `HUGGING_FACE_HUB_TOKEN`, or the file that a login writes. None if
    /// `HF_HUB_DISABLE_IMPLICIT_TOKEN` is set. It is read only when a connection needs it.
    ///
    /// # Errors
    /// If the file exists but cannot be read, or if the token has characters that no token can have.
    pub fn token(&self) -> Result<Option<String>> {
        const NO_TOKEN: &str = "HF_HUB_DISABLE_IMPLICIT_TOKEN";
        if text(NO_TOKEN).is_some_and(|value| is_true(&value)) {
            return Ok(None);
        }
        let shown = self.token.display();
        let token = match text("HF_TOKEN").or_else(|| text("HUGGING_FACE_HUB_TOKEN")) {
            Some(token) => token,
            None => match fs::read_to_string(&self.token) {
                Ok(token) => token.trim().to_owned(),
                Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
                Err(error) => {
                    return Err(anyhow!(
                        "cannot read the access token in {shown}: {error}. Make the file readable, give the token in \
                         HF_TOKEN, or set {NO_TOKEN}=1 to go without one"
                    ));
                }
            },
        };
        if !token.chars().all(|c| c.is_ascii_graphic()) {
            bail!("the access token (HF_TOKEN, or the file {shown}) has characters that no token has. Log in again");
        }
        Ok(Some(token).filter(|token| !token.is_empty()))
    }
}

/// The path in a variable, with `~` and variables expanded.
fn path(name: &str) -> Result<Option<PathBuf>> {
    let Some(value) = env::var_os(name).filter(|value| !value.is_empty()) else { return Ok(None) };
    match value.to_str() {
        Some(text) => expand::path(name, text).map(Some),
        None => Ok(Some(value.into())),
    }
}

fn text(name: &str) -> Option<String> {
    env::var(name).ok().map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
}

fn is_true(value: &str) -> bool {
    ["1", "on", "yes", "true"].contains(&value.to_ascii_lowercase().as_str())
}

/// `HF_HOME`, or `huggingface` in the user's cache folder.
fn home() -> Result<PathBuf> {
    if let Some(home) = path("HF_HOME")? {
        return Ok(home);
    }
    let usual = || Some(etcetera::home_dir().ok()?.join(".cache"));
    match path("XDG_CACHE_HOME")?.or_else(usual) {
        Some(caches) => Ok(caches.join("huggingface")),
        None => bail!("there is no home folder to keep downloads in. Set HF_HOME to a folder"),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn switches() {
        assert!(["1", "ON", "yes", "True"].iter().all(|value| super::is_true(value)));
        assert!(!["0", "off", "", "no"].iter().any(|value| super::is_true(value)));
    }
}
