//! Models from the Hugging Face hub, kept in the cache that its other tools use.
//!
//! A model that is in the cache runs from there, without a connection. What is missing is downloaded into `blobs/`,
//! checked against the length and checksum that the hub lists, and only then linked into a snapshot: a file in a
//! snapshot is whole.

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

/// The revision where none is given.
pub const MAIN: &str = "main";
/// What the bar says.
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

/// The folder of a model's files, downloaded if they are not in the cache. `accepted`: the model's licence is. `reads`:
/// the small files that a run needs beside the weights.
///
/// # Errors
/// If it is not in the cache and cannot be downloaded, or if nobody accepts its licence.
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

/// The folder of a model's files in the cache, whatever state they are in.
///
/// # Errors
/// If there is none.
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

/// Adds the small files that a run reads and a model in the cache lacks, or says what is left out.
fn complete(settings: &Settings, repo: &Repo, id: &Id, commit: &Commit, reads: Reads) {
    let mut lacks = repo.lacks(commit);
    lacks.retain(|name| reads.file(name));
    let is_broken = |name: &&str| repo.snapshot(commit).join(name).is_symlink();
    // That a broken link's file exists is known.
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
            "note: the cache has no {names} of {id}, and the hub was not asked whether the model has them: {why:#}. What they \
             would say (how a chat is written, how tokens are chosen, where a text ends) is left out"
        ));
    }
}

/// Adds the small files that a model in the cache lacks. Whatever the cache holds, a commit's files never change, so
/// what is found out here is found out once.
fn add(settings: &Settings, repo: &Repo, id: &Id, commit: &Commit) -> Result<()> {
    let client = Client::new(settings, id)?;
    // The model runs without an answer, so one try is enough.
    let listing = Listing::fetch(&client, id, commit.as_str(), 1)?;
    let small = listing.files.iter().filter(|file| source::SMALL.contains(&file.name.as_str()));
    let missing: Vec<_> = small.filter(|file| !repo.has(commit, file)).collect();
    for file in missing {
        download::file(&client, repo, id, commit, file, &ProgressBar::hidden())?;
        terminal::note_if_watched(&format!("note: {} of {id} was missing in the cache and is now there", file.name));
    }
    listing.absent.iter().try_for_each(|name| repo.mark_absent(commit, name))
}

/// The names of missing files that may change an answer. Current models do without the other two.
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
