//! Downloads one file from the hub into `blobs/`. The file gets there only when it is complete and its checksum is right.

use super::cache::{Repo, cannot_write, is_whole};
use super::hash::{Etag, Hasher};
use super::http::Client;
use super::id::{Commit, Id};
use super::listing::RemoteFile;
use super::retry::{Fault, TRIES, retrying};
use crate::terminal;
use anyhow::{Context as _, Result, anyhow, bail};
use indicatif::ProgressBar;
use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::PathBuf;
use ureq::Body;
use ureq::http::{HeaderMap, Response, header};

/// A try that ended early but brought at least this many bytes counts as progress and not as a failure.
const GAIN: u64 = 1 << 20;

/// How many bytes of a file are in the cache, even if it is incomplete.
pub fn held(repo: &Repo, commit: &Commit, file: &RemoteFile) -> u64 {
    match repo.has(commit, file) || is_whole(&repo.blob(&file.etag), file.len) {
        true => file.len,
        false => fs::metadata(repo.partial(&file.etag)).map_or(0, |data| data.len().min(file.len)),
    }
}

/// Puts a file into its commit's snapshot. A file that is there already is not downloaded again, and an unfinished download of
/// an earlier run is continued.
///
/// # Errors
/// If the download fails, if the bytes do not have the checksum that the hub lists, or if the disk fails.
pub fn file(
    client: &Client,
    repo: &Repo,
    id: &Id,
    commit: &Commit,
    file: &RemoteFile,
    bar: &ProgressBar,
) -> Result<()> {
    let wait = || terminal::note_if_watched("note: another program downloads this file; waiting for it");
    let _lock = repo.lock(&file.etag, || bar.suspend(wait))?;
    let begin = bar.position();
    if !repo.has(commit, file) {
        if !is_whole(&repo.blob(&file.etag), file.len) {
            blob(client, repo, &file.path(id, commit), Transfer::open(repo, file, commit, bar)?)?;
        }
        repo.link(commit, &file.name, &file.etag)?;
    }
    bar.set_position(begin + file.len);
    Ok(())
}

/// Finishes a transfer, checks its checksum, and moves the file to its place.
fn blob(client: &Client, repo: &Repo, from: &str, mut transfer: Transfer) -> Result<()> {
    let file = transfer.file;
    let went_on = transfer.done > 0;
    let mut found = transfer.run(client, from)?;
    // If an earlier run left damaged bytes, the download is repeated from the beginning.
    if found != file.etag && went_on {
        transfer.restart()?;
        found = transfer.run(client, from)?;
    }
    let Transfer { path, out, .. } = transfer;
    if found != file.etag {
        drop(out);
        fs::remove_file(&path).with_context(|| cannot_write(&path))?;
        bail!(file.changed());
    }
    let blob = repo.blob(&file.etag);
    out.sync_all().and_then(|()| fs::rename(&path, &blob)).with_context(|| cannot_write(&blob))
}

/// The download of one file.
struct Transfer<'a> {
    file: &'a RemoteFile,
    commit: &'a Commit,
    path: PathBuf,
    out: File,
    /// The checksum of the first `done` bytes, which are on the disk.
    hasher: Hasher,
    done: u64,
    /// Position of the progress bar before this file.
    begin: u64,
    bar: &'a ProgressBar,
}

impl<'a> Transfer<'a> {
    fn open(repo: &Repo, file: &'a RemoteFile, commit: &'a Commit, bar: &'a ProgressBar) -> Result<Self> {
        let (path, begin) = (repo.partial(&file.etag), bar.position());
        let options = File::options().read(true).write(true).create(true).truncate(false).open(&path);
        let out = options.with_context(|| cannot_write(&path))?;
        let hasher = Hasher::new(&file.etag, file.len);
        let mut transfer = Transfer { file, commit, path, out, hasher, done: 0, begin, bar };
        let there = transfer.out.metadata().map_or(0, |data| data.len());
        if there > file.len {
            transfer.restart()?;
        } else if there > 0 {
            bar.set_message("checking what is there");
            let read = transfer.hasher.read(&mut transfer.out, &mut |_| {});
            read.with_context(|| format!("cannot read {}. Delete it and try again", transfer.path.display()))?;
            transfer.done = there;
            bar.set_message(super::DOWNLOADING);
        }
        transfer.show();
        // The bytes that were there took no time. They must not count in the estimate.
        bar.reset_eta();
        Ok(transfer)
    }

    fn show(&self) {
        self.bar.set_position(self.begin + self.done);
    }

    /// Discards all bytes, to begin again.
    fn restart(&mut self) -> Result<()> {
        self.out
            .set_len(0)
            .and_then(|()| self.out.seek(SeekFrom::Start(0)))
            .with_context(|| cannot_write(&self.path))?;
        self.hasher = Hasher::new(&self.file.etag, self.file.len);
        self.done = 0;
        self.show();
        Ok(())
    }

    /// Downloads until all bytes are there, and returns their checksum.
    fn run(&mut self, client: &Client, path: &str) -> Result<Etag> {
        let bar = self.bar;
        retrying(client.endpoint(), TRIES, bar, &mut || {
            let before = self.done;
            self.attempt(client, path).map_err(|fault| match fault {
                Fault::Passing { why, wait, .. } => {
                    Fault::Passing { why, wait, gained: self.done.saturating_sub(before) >= GAIN }
                }
                fault => fault,
            })
        })?;
        Ok(self.hasher.clone().finish())
    }

    /// One request.
    fn attempt(&mut self, client: &Client, path: &str) -> Result<(), Fault> {
        if self.done == self.file.len {
            return Ok(());
        }
        let response = client.get(path, self.done)?;
        match response.status().as_u16() {
            206 if range_begin(response.headers()) == Some(self.done) => {}
            200 => {
                if self.done > 0 {
                    self.restart()?;
                }
            }
            _ => {
                self.restart()?;
                return Err(Fault::passing("the server cannot go on where the download stopped"));
            }
        }
        self.check(&response)?;
        let mut body = response.into_body().into_reader();
        let mut piece = vec![0; 256 << 10];
        while self.done < self.file.len {
            let count = body.read(&mut piece).map_err(|error| client.broken(&error))?;
            if count == 0 {
                return Err(Fault::passing(format!("it ended at byte {} of {}", self.done, self.file.len)));
            }
            let more = &piece[..count];
            if count as u64 > self.file.len - self.done {
                return Err(self.wrong_len("more".into()).into());
            }
            self.out.write_all(more).with_context(|| cannot_write(&self.path))?;
            self.hasher.update(more);
            self.done += count as u64;
            self.show();
        }
        Ok(())
    }

    /// Compares the headers of the answer with the length and checksum that the hub lists.
    fn check(&self, response: &Response<Body>) -> Result<()> {
        let headers = response.headers();
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let commit = text("x-repo-commit");
        // An etag is a checksum only if the hub itself answers. Other servers use etags of their own kind.
        let etag = text("x-linked-etag").or_else(|| text(header::ETAG.as_str()).filter(|_| commit.is_some()));
        let other_commit = commit.is_some_and(|commit| commit != self.commit.as_str());
        if other_commit || etag.and_then(Etag::from_header).is_some_and(|etag| etag != self.file.etag) {
            bail!("{}: the file changed on the hub during the download. Run the same command again", self.file.name);
        }
        let Some(len) = response.body().content_length() else { return Ok(()) };
        if len == self.file.len - self.done {
            return Ok(());
        }
        match text(header::CONTENT_TYPE.as_str()) {
            Some(kind) if kind.starts_with("text/html") => bail!(
                "{}: a web page came instead of the file. Log in to the network if it asks for that, and check HF_ENDPOINT \
                 and the proxy",
                self.file.name
            ),
            _ => Err(self.wrong_len(self.done.saturating_add(len).to_string())),
        }
    }

    fn wrong_len(&self, found: String) -> anyhow::Error {
        let RemoteFile { name, len, .. } = self.file;
        anyhow!(
            "{name}: the server sends {found} bytes where the hub lists {len}: it is not the same file. Check HF_ENDPOINT and \
             the proxy, or try again later"
        )
    }
}

/// The position of the first byte of a partial answer.
fn range_begin(headers: &HeaderMap) -> Option<u64> {
    let range = headers.get(header::CONTENT_RANGE)?.to_str().ok()?.strip_prefix("bytes ")?;
    range.split('-').next()?.trim().parse().ok()
}
