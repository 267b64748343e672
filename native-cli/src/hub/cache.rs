//! The cache on disk, in the layout that all tools of the hub share. `blobs/` holds files that are named by their checksums,
//! `snapshots/COMMIT/` has links from file names to them, and `refs/` says at which commit a branch is.

use super::hash::Etag;
use super::id::{Commit, Id};
use super::listing::RemoteFile;
use super::settings::Settings;
use crate::source;
use anyhow::{Context as _, Result};
use serde::Deserialize;
use serde::de::IgnoredAny;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

/// What marks a folder as a cache (bford.info/cachedir).
const CACHEDIR_TAG: &[u8] = b"Signature: 8a477f597d28d172789f06886806bc55
# This folder is a cache: its files can be downloaded again.
";

/// A repository in the cache.
#[derive(Debug)]
pub struct Repo {
    cache: PathBuf,
    /// `models--owner--name`.
    folder: PathBuf,
    locks: PathBuf,
    /// Whether snapshots hold the files themselves, and not links.
    no_links: bool,
}

/// The contents of `trees/COMMIT.json`.
#[derive(Deserialize)]
struct Tree {
    format_version: u32,
    files: BTreeMap<String, IgnoredAny>,
}

impl Repo {
    /// The repository's place in the cache. It need not exist.
    pub fn new(settings: &Settings, id: &Id) -> Repo {
        let (cache, name) = (settings.cache.clone(), format!("models--{}--{}", id.owner, id.name));
        let (folder, locks) = (cache.join(&name), cache.join(".locks").join(name));
        Repo { cache, folder, locks, no_links: settings.no_links }
    }

    /// Whether any tool has downloaded anything of the repository.
    pub fn exists(&self) -> bool {
        self.folder.exists()
    }

    /// The commit that a revision is at, as far as the cache knows.
    pub fn commit(&self, revision: &str) -> Option<Commit> {
        let known = || Commit::new(fs::read_to_string(self.folder.join("refs").join(revision)).ok()?.trim());
        Commit::new(revision).or_else(known)
    }

    /// The folder of a commit's files.
    pub fn snapshot(&self, commit: &Commit) -> PathBuf {
        self.folder.join("snapshots").join(commit.as_str())
    }

    /// The path of a file's bytes.
    pub fn blob(&self, etag: &Etag) -> PathBuf {
        self.folder.join("blobs").join(etag.as_str())
    }

    /// The path of a file's bytes until they are complete.
    pub fn partial(&self, etag: &Etag) -> PathBuf {
        self.folder.join("blobs").join(format!("{}.incomplete", etag.as_str()))
    }

    /// Whether a commit's snapshot has the file in full length.
    pub fn has(&self, commit: &Commit, file: &RemoteFile) -> bool {
        is_whole(&self.snapshot(commit).join(&file.name), file.len)
    }

    /// Whether a model can run from a commit's files: configuration and weights are there.
    pub fn runs(&self, commit: &Commit) -> bool {
        let snapshot = self.snapshot(commit);
        let there = |name: &str| snapshot.join(name).is_file();
        there(source::CONFIG) && source::weight_names(&snapshot).is_ok_and(|names| names.iter().all(|name| there(name)))
    }

    /// The small files that a commit's snapshot lacks although the model may have them, because other tools download only what
    /// they need. The model does not have a file that is marked as absent, or that a complete list of the commit's files does
    /// not name.
    pub fn lacks(&self, commit: &Commit) -> Vec<&'static str> {
        let (snapshot, list) = (self.snapshot(commit), self.list(commit));
        let exists = |name: &str| match &list {
            Some(list) => list.contains(name),
            None => !self.absent(commit, name).exists(),
        };
        // A broken link proves that the model has the file, whatever the marks and the list say.
        let lacks = |name: &str| {
            let place = snapshot.join(name);
            !place.is_file() && (place.symlink_metadata().is_ok() || exists(name))
        };
        source::SMALL.into_iter().filter(|name| lacks(name)).collect()
    }

    /// The names of all files of a commit, if huggingface_hub has left a list of them (`trees/COMMIT.json`).
    fn list(&self, commit: &Commit) -> Option<BTreeSet<String>> {
        let path = self.folder.join("trees").join(format!("{}.json", commit.as_str()));
        let tree: Tree = serde_json::from_slice(&source::read(&path).ok()?).ok()?;
        (tree.format_version == 1).then(|| tree.files.into_keys().collect())
    }

    /// The path of the empty file that marks a file as absent from a commit.
    fn absent(&self, commit: &Commit, name: &str) -> PathBuf {
        self.folder.join(".no_exist").join(commit.as_str()).join(name)
    }

    /// Marks a file as absent from a commit.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn mark_absent(&self, commit: &Commit, name: &str) -> Result<()> {
        write(&self.absent(commit, name), b"")
    }

    /// Stores at which commit a revision is. Nothing is stored for a revision that is a commit itself.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn set_commit(&self, revision: &str, commit: &Commit) -> Result<()> {
        match Commit::new(revision) {
            Some(_) => Ok(()),
            None => write(&self.folder.join("refs").join(revision), commit.as_str().as_bytes()),
        }
    }

    /// Puts a complete blob into a commit's snapshot under a file name.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn link(&self, commit: &Commit, name: &str, etag: &Etag) -> Result<()> {
        let (snapshot, blob) = (self.snapshot(commit), self.blob(etag));
        let place = snapshot.join(name);
        let linked = || {
            fs::create_dir_all(&snapshot)?;
            match fs::remove_file(&place) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let target = Path::new("..").join("..").join("blobs").join(etag.as_str());
            if !self.no_links && symlink(&target, &place).is_ok() {
                return Ok(());
            }
            // If the system permits no links, the snapshot gets the file itself, as the cache's layout prescribes. If the blob
            // is a link itself, it leads to a store that several repositories share. Then the file is copied, so that it stays
            // there.
            match blob.is_symlink() {
                true => fs::copy(&blob, &place).map(drop),
                false => fs::rename(&blob, &place),
            }
        };
        linked().with_context(|| cannot_write(&place))
    }

    /// Tells backup programs that the files of the cache can be downloaded again. An error does no harm and is ignored.
    pub fn tag(&self) {
        let tag = self.cache.join("CACHEDIR.TAG");
        if !tag.exists() {
            let _ = write(&tag, CACHEDIR_TAG);
        }
    }

    /// Waits until no other program downloads this file, and keeps others from doing so until the lock is dropped.
    ///
    /// # Errors
    /// If the lock file cannot be made.
    pub fn lock(&self, etag: &Etag, on_wait: impl FnOnce()) -> Result<File> {
        let path = self.locks.join(format!("{}.lock", etag.as_str()));
        let locked = || {
            fs::create_dir_all(&self.locks)?;
            fs::create_dir_all(self.folder.join("blobs"))?;
            let file = File::create(&path)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    on_wait();
                    file.lock()?;
                }
                // The file system has no locks. If two programs write the same file, the checksum finds the damage.
                Err(TryLockError::Error(_)) => {}
            }
            Ok::<_, io::Error>(file)
        };
        locked().with_context(|| cannot_write(&path))
    }
}

/// If a folder is a snapshot in the cache, the name of its model: NAME in `models--owner--NAME/snapshots/COMMIT`.
pub fn repository(folder: &Path) -> Option<&str> {
    let snapshots = folder.parent().filter(|parent| parent.ends_with("snapshots"))?;
    let repository = snapshots.parent()?.file_name()?.to_str()?.strip_prefix("models--")?;
    // The oldest repositories have no owner in their name.
    Some(repository.rsplit_once("--").map_or(repository, |(_, name)| name))
}

/// Whether there is a file of this length.
pub fn is_whole(path: &Path, len: u64) -> bool {
    fs::metadata(path).is_ok_and(|data| data.is_file() && data.len() == len)
}

#[cfg(unix)]
fn symlink(target: &Path, place: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(target, place)
}

#[cfg(windows)]
fn symlink(target: &Path, place: &Path) -> io::Result<()> {
    std::os::windows::fs::symlink_file(target, place)
}

/// Writes a small file completely or not at all.
fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let written = || {
        let folder = path.parent().unwrap_or(path);
        fs::create_dir_all(folder)?;
        let partial = path.with_file_name(format!(".{}.incomplete", std::process::id()));
        fs::write(&partial, bytes)?;
        fs::rename(&partial, path)
    };
    written().with_context(|| cannot_write(path))
}

/// The error message for a file in the cache that cannot be written.
pub fn cannot_write(path: &Path) -> String {
    format!("cannot write {}. Check the disk's space and permissions, or set HF_HOME to another folder", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn snapshots_tell_their_model() {
        let name = |path: &'static str| repository(Path::new(path));
        assert_eq!(name("/c/hub/models--nvidia--Nemotron-Flash-1B/snapshots/0123"), Some("Nemotron-Flash-1B"));
        assert_eq!(name("models--gpt2/snapshots/0123/"), Some("gpt2"));
        for other in [
            "models--a--b",
            "models--a--b/blobs/0123",
            "models--a--b/snapshots",
            "a/snapshots/0123",
            "snapshots/x",
            "/",
        ] {
            assert_eq!(name(other), None, "{other}");
        }
    }
}
