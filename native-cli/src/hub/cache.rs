//! The cache on disk, in the layout that all tools of the hub share: `blobs/` holds files named by their checksums,
//! `snapshots/COMMIT/` links names to them, `refs/` says which commit a branch is at.

use super::hash::Etag;
use super::id::{Commit, Id};
use super::listing::RemoteFile;
use crate::source;
use anyhow::{Context as _, Result};
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

/// A repository in the cache.
#[derive(Debug)]
pub struct Repo {
    /// `models--owner--name`.
    folder: PathBuf,
    locks: PathBuf,
}

impl Repo {
    /// Where the repository is, or would be.
    pub fn new(cache: &Path, id: &Id) -> Repo {
        let name = format!("models--{}--{}", id.owner, id.name);
        Repo { folder: cache.join(&name), locks: cache.join(".locks").join(name) }
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

    /// Whether there is nothing to download: it runs, and has its tokenizer or is known to have none.
    pub fn complete(&self, commit: &Commit) -> bool {
        let tokenizer = self.snapshot(commit).join(source::TOKENIZER);
        self.runs(commit) && (tokenizer.is_file() || self.absent(commit, source::TOKENIZER).exists())
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
            // A system that grants no links gets the file itself, as the layout has it for such systems.
            symlink(&target, &place).or_else(|_| fs::rename(&blob, &place))
        };
        linked().with_context(|| cannot_write(&place))
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
