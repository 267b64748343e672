//! The cache on disk, in the layout that all tools of the hub share: `blobs/` holds files named by their checksums,
//! `snapshots/COMMIT/` links names to them, `refs/` says which commit a branch is at.

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
    /// Files lie in snapshots themselves.
    no_links: bool,
}

/// What `trees/COMMIT.json` says.
#[derive(Deserialize)]
struct Tree {
    format_version: u32,
    files: BTreeMap<String, IgnoredAny>,
}

impl Repo {
    /// Where the repository is, or would be.
    pub fn new(settings: &Settings, id: &Id) -> Repo {
        let (cache, name) = (settings.cache.clone(), format!("models--{}--{}", id.owner, id.name));
        let (folder, locks) = (cache.join(&name), cache.join(".locks").join(name));
        Repo { cache, folder, locks, no_links: settings.no_links }
    }

    /// Whether some tool has downloaded anything of it.
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

    /// Where a file's bytes are.
    pub fn blob(&self, etag: &Etag) -> PathBuf {
        self.folder.join("blobs").join(etag.as_str())
    }

    /// Where a file's bytes are until they are complete.
    pub fn partial(&self, etag: &Etag) -> PathBuf {
        self.folder.join("blobs").join(format!("{}.incomplete", etag.as_str()))
    }

    /// Whether a commit's snapshot has a file.
    pub fn has(&self, commit: &Commit, file: &RemoteFile) -> bool {
        is_whole(&self.snapshot(commit).join(&file.name), file.len)
    }

    /// Whether a model runs from a commit's files: configuration and weights are there.
    pub fn runs(&self, commit: &Commit) -> bool {
        let snapshot = self.snapshot(commit);
        let there = |name: &str| snapshot.join(name).is_file();
        there(source::CONFIG) && source::weight_names(&snapshot).is_ok_and(|names| names.iter().all(|name| there(name)))
    }

    /// The small files that a commit's snapshot lacks though the model may have them: other tools download only what
    /// they need. A file that is marked, or that a complete list of the commit's files does not name, does not exist.
    pub fn lacks(&self, commit: &Commit) -> Vec<&'static str> {
        let (snapshot, list) = (self.snapshot(commit), self.list(commit));
        let exists = |name: &str| match &list {
            Some(list) => list.contains(name),
            None => !self.absent(commit, name).exists(),
        };
        // A link to nothing says that the file exists, whatever else does not.
        let lacks = |name: &str| {
            let place = snapshot.join(name);
            !place.is_file() && (place.symlink_metadata().is_ok() || exists(name))
        };
        source::SMALL.into_iter().filter(|name| lacks(name)).collect()
    }

    /// The names of all files of a commit, where huggingface_hub has left them (`trees/COMMIT.json`).
    fn list(&self, commit: &Commit) -> Option<BTreeSet<String>> {
        let path = self.folder.join("trees").join(format!("{}.json", commit.as_str()));
        let tree: Tree = serde_json::from_slice(&source::read(&path).ok()?).ok()?;
        (tree.format_version == 1).then(|| tree.files.into_keys().collect())
    }

    /// The mark of a file that a commit does not have.
    fn absent(&self, commit: &Commit, name: &str) -> PathBuf {
        self.folder.join(".no_exist").join(commit.as_str()).join(name)
    }

    /// Remembers that a commit has no such file.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn mark_absent(&self, commit: &Commit, name: &str) -> Result<()> {
        write(&self.absent(commit, name), b"")
    }

    /// Remembers which commit a revision is at. A commit needs no remembering.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn set_commit(&self, revision: &str, commit: &Commit) -> Result<()> {
        match Commit::new(revision) {
            Some(_) => Ok(()),
            None => write(&self.folder.join("refs").join(revision), commit.as_str().as_bytes()),
        }
    }

    /// Gives a complete blob its name in a commit.
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
            // A system that grants no links gets the file itself, as the layout has it for such systems. A blob that is a
            // link itself leads to a store that repositories share: that file stays where it is.
            match blob.is_symlink() {
                true => fs::copy(&blob, &place).map(drop),
                false => fs::rename(&blob, &place),
            }
        };
        linked().with_context(|| cannot_write(&place))
    }

    /// Tells backup programs that the cache's files can be had again. No harm is done where that fails.
    pub fn tag(&self) {
        let tag = self.cache.join("CACHEDIR.TAG");
        if !tag.exists() {
            let _ = write(&tag, CACHEDIR_TAG);
        }
    }

    /// Waits for other programs that download this file, and keeps them out until the lock is dropped.
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
                // A file system without locks: the checksum still tells a file that two wrote from a good one.
                Err(TryLockError::Error(_)) => {}
            }
            Ok::<_, io::Error>(file)
        };
        locked().with_context(|| cannot_write(&path))
    }
}

/// The name of the model whose snapshot a folder is: `models--owner--NAME/snapshots/COMMIT`.
pub fn repository(folder: &Path) -> Option<&str> {
    let snapshots = folder.parent().filter(|parent| parent.ends_with("snapshots"))?;
    let repository = snapshots.parent()?.file_name()?.to_str()?.strip_prefix("models--")?;
    // The oldest models have no owner.
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

/// Writes a small file as a whole or not at all.
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

/// The message of a file in the cache that cannot be written.
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
