//! Models from the Hugging Face hub, kept in the cache that its other tools use.
//!
//! A model that is in the cache runs from there, without a connection. A missing file is downloaded into `blobs/` and checked
//! against the length and checksum that the hub lists. Only then is it linked into a snapshot. So a file in a snapshot is
//! complete.

mod cache;
mod download;
mod expand;
mod hash;
mod http;
mod id;
mod listing;
mod proxy;
mod refusal;
mod retry;
mod settings;

pub use cache::repository;
pub use hash::{Etag, Hasher};
pub use id::{Id, is_revision};

use crate::report::Usage;
use crate::source::{self, Reads};
use crate::terminal;
use anyhow::{Result, anyhow, bail};
use cache::Repo;
use http::Client;
use id::Commit;
use indicatif::{BinaryBytes, ProgressBar};
use listing::{Listing, RemoteFile};
use retry::TRIES;
use settings::Settings;
use std::path::{Path, PathBuf};

/// The default revision.
pub const MAIN: &str = "main";
/// The text of the progress bar.
const DOWNLOADING: &str = "downloading";

/// The names of the files that a model needs, by an answer of the hub (the fuzz target). Nothing else is asked.
///
/// # Errors
/// As [`Listing::fetch`].
pub fn listed(answer: &[u8]) -> Result<Vec<String>> {
    let id = Id::new("owner/name").ok_or_else(|| anyhow!("no id"))?;
    let ask = |_: &Commit, name: &str| Err(anyhow!("{name} is only named"));
    let read = |_: &Commit, _: &RemoteFile| Ok(br#"{"weight_map": {"a": "b.safetensors"}}"#.to_vec());
    let listing = Listing::of(answer, &id, "the hub", ask, read)?;
    Ok(listing.files.into_iter().map(|file| file.name).collect())
}

/// The folder of a model's files. They are downloaded if they are not in the cache. `accepted` says whether the user has
/// already accepted the model's licence. `reads` says which small files the run needs beside the weights.
///
/// # Errors
/// If the model is not in the cache and cannot be downloaded, or if nobody accepts its licence.
pub fn folder(id: &Id, revision: &str, accepted: bool, reads: Reads) -> Result<PathBuf> {
    let settings = Settings::read()?;
    let repo = Repo::new(&settings, id);
    if let Some(commit) = repo.commit(revision).filter(|commit| repo.runs(commit)) {
        complete(&settings, &repo, id, &commit, reads);
        return Ok(repo.snapshot(&commit));
    }
    if let Some(variable) = settings.offline {
        bail!(
            "there is no folder `{id}` here, the model {id} ({revision}) is not complete in the cache {}, and {variable} is set. \
             Unset it to download the model, or give --model a folder",
            settings.cache.display()
        );
    }
    fetch(&settings, &repo, id, revision, accepted)
}

/// The folder of a model's files in the cache. The files may be incomplete or damaged.
///
/// # Errors
/// If the model is not in the cache.
pub fn cached(id: &Id, revision: &str) -> Result<PathBuf> {
    let settings = Settings::read()?;
    let repo = Repo::new(&settings, id);
    match repo.commit(revision).map(|commit| repo.snapshot(&commit)) {
        Some(folder) if folder.is_dir() => Ok(folder),
        _ => bail!(
            "there is no folder `{id}` here, and the model {id} ({revision}) is not in the cache {}. Any command that runs it \
             downloads it: nemoflash explain --model {id}",
            settings.cache.display()
        ),
    }
}

/// Downloads the small files that the run reads and the cache lacks. If that is not possible, a note says what is missing.
fn complete(settings: &Settings, repo: &Repo, id: &Id, commit: &Commit, reads: Reads) {
    let mut lacks = repo.lacks(commit);
    lacks.retain(|name| reads.file(name));
    let is_broken = |name: &&str| repo.snapshot(commit).join(name).is_symlink();
    // If a file has a broken link, the model has that file, so asking for it is worth a connection.
    let asks = lacks.iter().any(|name| reads.asks_for(name) || is_broken(name));
    if !asks {
        if !lacks.is_empty() {
            let names = lacks.join(", ");
            terminal::note(&format!(
                "note: the cache has no {names} of {id}. Text at temperature 0 is written without asking the hub for it, and \
                 ends where config.json says. `nemoflash explain --model {id}` adds it if the model has it"
            ));
        }
        return;
    }
    let added = match settings.offline {
        Some(variable) => Err(anyhow!("{variable} is set")),
        None => add(settings, repo, id, commit),
    };
    let Err(why) = added else { return };
    let (broken, missing): (Vec<&str>, Vec<&str>) = lacks.into_iter().partition(is_broken);
    if !broken.is_empty() {
        let names = broken.join(", ");
        terminal::note(&format!("note: the cache has lost {names} of {id}, and it was not downloaded again: {why:#}"));
    }
    if let Some(names) = worth_a_note(&missing) {
        terminal::note(&format!(
            "note: the cache has no {names} of {id}, and the hub was not asked whether the model has them: {why:#}. Such files \
             say how a chat is written, how tokens are chosen and where a text ends. This run does without them"
        ));
    }
}

/// Downloads the small files that a model in the cache lacks, and marks those that the model does not have. The files of a
/// commit never change, so this is necessary only once.
fn add(settings: &Settings, repo: &Repo, id: &Id, commit: &Commit) -> Result<()> {
    let client = Client::new(settings, id)?;
    // The model also runs without these files, so one try is enough.
    let listing = Listing::fetch(&client, id, commit.as_str(), 1)?;
    let small = listing.files.iter().filter(|file| source::SMALL.contains(&file.name.as_str()));
    let missing: Vec<_> = small.filter(|file| !repo.has(commit, file)).collect();
    for file in missing {
        download::file(&client, repo, id, commit, file, &ProgressBar::hidden())?;
        terminal::note_if_watched(&format!("note: {} of {id} was missing in the cache and is now there", file.name));
    }
    listing.absent.iter().try_for_each(|name| repo.mark_absent(commit, name))
}

/// The names of those missing files that may change an answer. Only old models have the other two files.
fn worth_a_note(lacks: &[&str]) -> Option<String> {
    let old = |name: &&&str| ["special_tokens_map.json", "chat_template.json"].contains(*name);
    let names: Vec<&str> = lacks.iter().filter(|name| !old(name)).copied().collect();
    (!names.is_empty()).then(|| names.join(", "))
}

fn fetch(settings: &Settings, repo: &Repo, id: &Id, revision: &str, accepted: bool) -> Result<PathBuf> {
    let client = Client::new(settings, id)?;
    let listing = Listing::fetch(&client, id, revision, TRIES)?;
    let Listing { commit, license, files, absent } = &listing;
    let held = files.iter().map(|file| download::held(repo, commit, file)).sum();
    let missing = listing.len().saturating_sub(held);
    let short = &commit.as_str()[..12];
    let what = format!("{id} ({short}): {license}, {}/{id}. To download: {}", client.endpoint(), BinaryBytes(missing));
    if !repo.exists() && !accepted {
        let what = format!("there is no folder `{id}` here, but a model on the hub: {what}");
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
    repo.tag();
    absent.iter().try_for_each(|name| repo.mark_absent(commit, name))?;
    repo.set_commit(revision, commit)?;
    Ok(repo.snapshot(commit))
}

/// Refuses a download that is larger than the free space of the disk, if the system tells how much is free.
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
