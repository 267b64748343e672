//! Models from the Hugging Face hub, kept in the cache that its other tools use.
//!
//! A model that is in the cache runs from there, without a connection. What is missing is downloaded into `blobs/`,
//! checked against the length and checksum that the hub lists, and only then linked into a snapshot: a file in a
//! snapshot is whole.

mod cache;
mod download;
mod hash;
mod http;
mod id;
mod listing;
mod settings;

pub use hash::{Etag, Hasher};
pub use id::{Id, is_revision};

use crate::report::Usage;
use crate::{source, terminal};
use anyhow::{Result, bail};
use cache::Repo;
use http::Client;
use indicatif::BinaryBytes;
use listing::Listing;
use settings::Settings;
use std::path::{Path, PathBuf};

/// The revision where none is given.
pub const MAIN: &str = "main";
/// What the bar says.
const DOWNLOADING: &str = "downloading";

/// The folder of a model's files, downloaded if they are not in the cache. `accepted`: the model's licence is.
///
/// # Errors
/// If it is not in the cache and cannot be downloaded, or if nobody accepts its licence.
pub fn folder(id: &Id, revision: &str, accepted: bool) -> Result<PathBuf> {
    let settings = Settings::read()?;
    let repo = Repo::new(&settings.cache, id);
    let enough = |commit: &_| repo.complete(commit) || settings.offline && repo.runs(commit);
    if let Some(commit) = repo.commit(revision).filter(enough) {
        return Ok(repo.snapshot(&commit));
    }
    if settings.offline {
        bail!(
            "{id} ({revision}) is not complete in the cache {} and HF_HUB_OFFLINE is set. Unset it to download the model, or \
             give --model a folder",
            settings.cache.display()
        );
    }
    fetch(&settings, &repo, id, revision, accepted)
}

/// The folder of a model's files in the cache, whatever state they are in.
///
/// # Errors
/// If there is none.
pub fn cached(id: &Id, revision: &str) -> Result<PathBuf> {
    let settings = Settings::read()?;
    let repo = Repo::new(&settings.cache, id);
    match repo.commit(revision).map(|commit| repo.snapshot(&commit)) {
        Some(folder) if folder.is_dir() => Ok(folder),
        _ => bail!(
            "{id} ({revision}) is not in the cache {}. Any command that runs it downloads it: nemoflash explain --model {id}",
            settings.cache.display()
        ),
    }
}

fn fetch(settings: &Settings, repo: &Repo, id: &Id, revision: &str, accepted: bool) -> Result<PathBuf> {
    let client = Client::new(settings);
    let listing = Listing::fetch(&client, id, revision)?;
    let Listing { commit, license, files } = &listing;
    let held = files.iter().map(|file| download::held(repo, commit, file)).sum();
    let missing = listing.len().saturating_sub(held);
    let short = &commit.as_str()[..12];
    let what = format!("{id} ({short}): {license}, {}/{id}. To download: {}", client.endpoint(), BinaryBytes(missing));
    if !repo.exists() && !accepted {
        match terminal::confirm(&format!("{what}, to {}. Accept the licence and download?", settings.cache.display())) {
            Some(true) => {}
            Some(false) => bail!("{id} was not accepted, so nothing was downloaded. Choose another --model"),
            None => {
                let next = "Nobody is there to be asked: read the licence, then add --accept-license";
                return Err(Usage(format!("{what}. {next}")).into());
            }
        }
    } else {
        terminal::note_if_watched(&format!("note: {what}"));
    }
    room(&settings.cache, missing)?;
    let bar = terminal::bar(DOWNLOADING, listing.len(), true);
    let downloaded = files.iter().try_for_each(|file| download::file(&client, repo, id, commit, file, &bar));
    bar.finish_and_clear();
    downloaded?;
    if !files.iter().any(|file| file.name == source::TOKENIZER) {
        repo.mark_absent(commit, source::TOKENIZER)?;
    }
    repo.set_commit(revision, commit)?;
    Ok(repo.snapshot(commit))
}

/// Refuses what the disk cannot hold, where it tells.
fn room(cache: &Path, missing: u64) -> Result<()> {
    let there = cache.ancestors().find(|folder| folder.exists());
    match there.and_then(|folder| fs4::available_space(folder).ok()) {
        Some(room) if room < missing => bail!(
            "{} has room for {} and the download needs {}. Free some space, or set HF_HOME to a folder on another disk",
            cache.display(),
            BinaryBytes(room),
            BinaryBytes(missing)
        ),
        _ => Ok(()),
    }
}
