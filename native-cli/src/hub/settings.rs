//! The variables that all tools of the hub share.

use anyhow::{Result, bail};
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{env, fs};

/// What the environment says.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `HF_HUB_CACHE`, or `hub` in `HF_HOME`.
    pub cache: PathBuf,
    /// `HF_ENDPOINT`, with no slash at its end.
    pub endpoint: String,
    /// `HF_TOKEN`, or the file that a login leaves behind.
    pub token: Option<String>,
    /// `HF_HUB_OFFLINE`: no connection at all.
    pub offline: bool,
    /// `HF_HUB_DOWNLOAD_TIMEOUT`: the longest silence.
    pub timeout: Duration,
}

impl Settings {
    /// Reads the environment.
    ///
    /// # Errors
    /// If a value cannot be used.
    pub fn read() -> Result<Settings> {
        let home = home()?;
        let endpoint = text("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".into());
        let endpoint = endpoint.trim_end_matches('/').to_owned();
        if !["https://", "http://"].iter().any(|scheme| endpoint.starts_with(scheme)) {
            bail!("HF_ENDPOINT is `{endpoint}`. It must begin with https:// or http://; unset it for huggingface.co");
        }
        let timeout = match text("HF_HUB_DOWNLOAD_TIMEOUT") {
            None => Duration::from_secs(10),
            Some(value) => match value.parse() {
                Ok(seconds @ 1..=86_400) => Duration::from_secs(seconds),
                _ => bail!("HF_HUB_DOWNLOAD_TIMEOUT is `{value}`. It is a number of seconds, 1 to 86400"),
            },
        };
        let token = token(&home);
        if token.as_ref().is_some_and(|token| !token.chars().all(|c| c.is_ascii_graphic())) {
            bail!(
                "the access token (HF_TOKEN, or the file `token` in HF_HOME) has characters that no token has. Log in again"
            );
        }
        Ok(Settings {
            cache: path("HF_HUB_CACHE").unwrap_or_else(|| home.join("hub")),
            endpoint,
            token,
            offline: text("HF_HUB_OFFLINE").is_some_and(|value| is_true(&value)),
            timeout,
        })
    }
}

fn path(name: &str) -> Option<PathBuf> {
    env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

fn text(name: &str) -> Option<String> {
    env::var(name).ok().map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
}

fn is_true(value: &str) -> bool {
    ["1", "on", "yes", "true"].contains(&value.to_ascii_lowercase().as_str())
}

/// `HF_HOME`, or `huggingface` in the folder of caches.
fn home() -> Result<PathBuf> {
    if let Some(home) = path("HF_HOME") {
        return Ok(home);
    }
    let caches = path("XDG_CACHE_HOME").or_else(|| Some(etcetera::home_dir().ok()?.join(".cache")));
    match caches {
        Some(caches) => Ok(caches.join("huggingface")),
        None => bail!("there is no home folder to keep downloads in. Set HF_HOME to a folder"),
    }
}

fn token(home: &Path) -> Option<String> {
    let file = path("HF_TOKEN_PATH").unwrap_or_else(|| home.join("token"));
    let saved = || Some(fs::read_to_string(file).ok()?.trim().to_owned());
    text("HF_TOKEN").or_else(saved).filter(|token| !token.is_empty())
}

#[cfg(test)]
mod tests {
    #[test]
    fn switches() {
        assert!(["1", "ON", "yes", "True"].iter().all(|value| super::is_true(value)));
        assert!(!["0", "off", "", "no"].iter().any(|value| super::is_true(value)));
    }
}
