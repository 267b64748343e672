//! What the hub says about a repository: its commit, its licence, and the files that a model needs.

use super::hash::{Etag, Hasher};
use super::http::{Client, LINKED_ETAG};
use super::id::{Commit, Id};
use super::retry::TRIES;
use crate::source::{self, INDEX, MAX_JSON, WEIGHTS};
use anyhow::{Result, anyhow, bail};
use nemoflash::checkpoint;
use serde::Deserialize;
use serde_json::Value;
use ureq::http::header;

/// Longest description of a repository that is read, in bytes.
const MAX_ANSWER: u64 = 16 << 20;

/// A repository at one commit.
#[derive(Debug)]
pub struct Listing {
    pub commit: Commit,
    /// The licence in words, to be shown.
    pub license: String,
    /// The files that a model needs, small files first.
    pub files: Vec<RemoteFile>,
    /// Small files that the repository does not have.
    pub absent: Vec<&'static str>,
}

/// A file of a repository.
#[derive(Clone, Debug)]
pub struct RemoteFile {
    pub name: String,
    /// Length in bytes.
    pub len: u64,
    pub etag: Etag,
}

/// The fields of the hub's answer that are used.
#[derive(Deserialize)]
struct Answer {
    sha: String,
    #[serde(default)]
    siblings: Vec<Sibling>,
    #[serde(default, rename = "cardData")]
    card: Value,
    #[serde(default)]
    tags: Vec<String>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
    #[serde(rename = "blobId")]
    blob: Option<String>,
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    sha256: String,
    size: u64,
}

impl Listing {
    /// Asks the hub, at most `tries` times.
    ///
    /// # Errors
    /// If the hub does not answer or refuses, or if the repository has no model that nemoflash can run.
    pub fn fetch(client: &Client, id: &Id, revision: &str, tries: u32) -> Result<Listing> {
        let path = format!("/api/models/{id}/revision/{}?blobs=true", revision.replace('/', "%2F"));
        let bytes = client.small(&path, MAX_ANSWER, tries)?;
        let ask = |commit: &Commit, name: &str| RemoteFile::ask(client, id, commit, name);
        let read = |commit: &Commit, file: &RemoteFile| file.read(client, id, commit);
        Listing::of(&bytes, id, client.endpoint(), ask, read)
    }

    /// What an answer of the hub lists. `ask` gets the headers of a file that the answer only names, and `read` the bytes of
    /// the weights' index.
    ///
    /// # Errors
    /// As [`Listing::fetch`].
    pub fn of(
        answer: &[u8],
        id: &Id,
        endpoint: &str,
        ask: impl Fn(&Commit, &str) -> Result<RemoteFile>,
        read: impl Fn(&Commit, &RemoteFile) -> Result<Vec<u8>>,
    ) -> Result<Listing> {
        let answer: Answer = serde_json::from_slice(answer).map_err(|error| {
            anyhow!("{endpoint} does not answer like the hub ({error}). Check HF_ENDPOINT and the proxy")
        })?;
        let Some(commit) = Commit::new(&answer.sha) else {
            bail!("{endpoint} names no commit for {id}. Check HF_ENDPOINT and the proxy");
        };
        let find = |name: &str| {
            let sibling = answer.siblings.iter().find(|sibling| sibling.rfilename == name)?;
            Some(sibling.file(id).and_then(|file| match file {
                Some(file) => Ok(file),
                None => ask(&commit, name),
            }))
        };
        let need = |name: &str, next: &str| find(name).unwrap_or_else(|| Err(anyhow!("{id} has no {name}. {next}")));
        let other = "nemoflash runs Nemotron-Flash checkpoints in the safetensors format: choose such a model";
        // Only these small files and the weights are ever downloaded: no code, and no other formats.
        let mut files = vec![need(source::CONFIG, other)?];
        let (there, absent) = source::SMALL
            .into_iter()
            .partition(|name| answer.siblings.iter().any(|sibling| sibling.rfilename == *name));
        let there: Vec<&str> = there;
        files.extend(there.into_iter().filter_map(find).collect::<Result<Vec<_>>>()?);
        if let Some(weights) = find(WEIGHTS) {
            files.push(weights?);
        } else {
            let index = need(INDEX, other)?;
            files.push(index.clone());
            bounded(&files)?;
            for name in checkpoint::index(&read(&commit, &index)?)? {
                files.push(need(
                    &name,
                    "Its index names that file: the repository is incomplete. Try another revision",
                )?);
            }
        }
        bounded(&files)?;
        Ok(Listing { license: license(&answer.card, &answer.tags), commit, files, absent })
    }

    /// Length of all files in bytes.
    pub fn len(&self) -> u64 {
        self.files.iter().fold(0, |sum, file| sum.saturating_add(file.len))
    }
}

/// Refuses small files that are not small.
fn bounded(files: &[RemoteFile]) -> Result<()> {
    match files.iter().find(|file| !file.name.ends_with(".safetensors") && file.len > MAX_JSON) {
        Some(RemoteFile { name, len, .. }) => {
            bail!(
                "the hub's {name} has {len} bytes, more than any such file of a model. Choose another model or revision"
            )
        }
        None => Ok(()),
    }
}

impl Sibling {
    /// The file. None if the list has only its name.
    ///
    /// # Errors
    /// If the list has a checksum that cannot be right.
    fn file(&self, id: &Id) -> Result<Option<RemoteFile>> {
        let (len, checksum) = match (&self.lfs, self.size, &self.blob) {
            (Some(lfs), ..) => (lfs.size, &lfs.sha256),
            (None, Some(len), Some(blob)) => (len, blob),
            _ => return Ok(None),
        };
        let name = self.rfilename.clone();
        match Etag::new(checksum) {
            Some(etag) => Ok(Some(RemoteFile { name, len, etag })),
            None => bail!(
                "the hub gives no length and checksum of {id}'s {name} that could be right. Check HF_ENDPOINT and the proxy"
            ),
        }
    }
}

impl RemoteFile {
    /// The path of the file in the hub's addresses.
    pub fn path(&self, id: &Id, commit: &Commit) -> String {
        place(id, commit, &self.name)
    }

    /// Asks for length and checksum of one file in its headers. This is needed for a mirror that lists only the names of files.
    fn ask(client: &Client, id: &Id, commit: &Commit, name: &str) -> Result<RemoteFile> {
        let headers = client.head(&place(id, commit, name))?;
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        // A large file is stored on another host. Then the usual two headers describe only the redirect to it.
        let (etag, len) = match text(LINKED_ETAG) {
            Some(etag) => (Some(etag), text("x-linked-size")),
            None => (text(header::ETAG.as_str()), text(header::CONTENT_LENGTH.as_str())),
        };
        match (etag.and_then(Etag::from_header), len.and_then(|len| len.parse().ok())) {
            (Some(etag), Some(len)) => Ok(RemoteFile { name: name.to_owned(), len, etag }),
            _ => bail!(
                "{} gives no length and checksum of {id}'s {name}, neither in its list nor in the file's headers, as a proxy \
                 of the hub may do. Set HF_ENDPOINT to another one, or download the files yourself and give --model their \
                 folder",
                client.endpoint()
            ),
        }
    }

    /// Downloads the bytes of a small file without putting them into the cache.
    fn read(&self, client: &Client, id: &Id, commit: &Commit) -> Result<Vec<u8>> {
        let bytes = client.small(&self.path(id, commit), self.len, TRIES)?;
        let mut hasher = Hasher::new(&self.etag, bytes.len() as u64);
        hasher.update(&bytes);
        if hasher.finish() != self.etag {
            bail!(self.changed());
        }
        Ok(bytes)
    }

    /// The error message for bytes that do not have the checksum that the hub lists.
    pub fn changed(&self) -> String {
        format!(
            "{}: the bytes that came do not have the {} that the hub lists: they were damaged or replaced on the way, \
             and are not kept. Try again; if it happens again, use another network, proxy or HF_ENDPOINT",
            self.name,
            self.etag.kind()
        )
    }
}

fn place(id: &Id, commit: &Commit, name: &str) -> String {
    format!("/{id}/resolve/{}/{name}", commit.as_str())
}

/// The licence in words.
fn license(card: &Value, tags: &[String]) -> String {
    let text = |key: &str| match &card[key] {
        Value::String(text) => Some(text.clone()),
        Value::Array(list) => list.first()?.as_str().map(str::to_owned),
        _ => None,
    };
    let tag = || tags.iter().find_map(|tag| tag.strip_prefix("license:")).map(str::to_owned);
    let named = match text("license").or_else(tag) {
        Some(other) if other == "other" => text("license_name").or(Some(other)),
        named => named,
    };
    let Some(name) = named else { return "no licence stated on its page".into() };
    let name: String = name.chars().take(100).collect();
    let lower = name.to_ascii_lowercase();
    let shown = if lower.starts_with("cc-") { name.to_ascii_uppercase() } else { name };
    let words = match lower.split(['-', '_', ' ']).any(|word| word == "nc") {
        true => " (non-commercial use only)",
        false if lower == "other" => " (terms of its own: read its page)",
        false => "",
    };
    format!("licence {shown}{words}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn licences_in_words() {
        let says =
            |card: Value, tags: &[&str]| license(&card, &tags.iter().map(|tag| tag.to_string()).collect::<Vec<_>>());
        let non_commercial = "licence CC-BY-NC-4.0 (non-commercial use only)";
        assert_eq!(
            says(json!({"license": "other", "license_name": "cc-by-nc-4.0"}), &["license:other"]),
            non_commercial
        );
        assert_eq!(says(json!({"license": "cc-by-nc-4.0"}), &[]), non_commercial);
        assert_eq!(says(Value::Null, &["license:cc-by-nc-4.0"]), non_commercial);
        assert_eq!(says(json!({"license": ["apache-2.0"]}), &[]), "licence apache-2.0");
        assert_eq!(says(json!({"license": "other"}), &[]), "licence other (terms of its own: read its page)");
        assert_eq!(says(Value::Null, &[]), "no licence stated on its page");
    }
}
