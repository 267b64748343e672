//! The two kinds of checksums that are the names of files in the hub's cache.

use super::id::is_hex;
use sha1::Sha1;
use sha2::{Digest as _, Sha256};
use std::io::{self, Read};

/// A file's name in `blobs/`: the SHA-256 of a large file (LFS), or git's SHA-1 of a small one, in hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Etag(String);

impl Etag {
    /// Reads a checksum. Every other text gives none, so an etag is safe as a file name.
    pub fn new(text: &str) -> Option<Etag> {
        (is_hex(text, 40) || is_hex(text, 64)).then(|| Etag(text.to_owned()))
    }

    /// Reads a checksum from a header, where it may be in quotes and have the mark `W/` of a weak etag.
    pub fn from_header(text: &str) -> Option<Etag> {
        Etag::new(text.trim_start_matches("W/").trim_matches('"'))
    }

    /// The hexadecimal digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name of this kind of checksum, for messages.
    pub fn kind(&self) -> &'static str {
        if self.0.len() == 64 { "SHA-256" } else { "git SHA-1" }
    }
}

/// Computes a checksum while the bytes come in.
#[derive(Clone, Debug)]
pub enum Hasher {
    Git(Sha1),
    Lfs(Sha256),
}

impl Hasher {
    /// Computes the kind of checksum that `etag` is, for a file of `len` bytes.
    pub fn new(etag: &Etag, len: u64) -> Hasher {
        match etag.0.len() {
            64 => Hasher::Lfs(Sha256::new()),
            // Git puts a line with the length in front of a file before it hashes it.
            _ => Hasher::Git(Sha1::new_with_prefix(format!("blob {len}\0"))),
        }
    }

    /// Adds bytes of the file.
    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Hasher::Git(hasher) => hasher.update(bytes),
            Hasher::Lfs(hasher) => hasher.update(bytes),
        }
    }

    /// Adds the rest of a file. `on_bytes` gets the number of bytes of each piece.
    ///
    /// # Errors
    /// If reading fails.
    pub fn read(&mut self, file: &mut impl Read, on_bytes: &mut dyn FnMut(u64)) -> io::Result<()> {
        let mut piece = vec![0; 1 << 20];
        loop {
            let count = file.read(&mut piece)?;
            if count == 0 {
                return Ok(());
            }
            self.update(&piece[..count]);
            on_bytes(count as u64);
        }
    }

    /// The checksum of all bytes that were added.
    pub fn finish(self) -> Etag {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        Etag(match self {
            Hasher::Git(hasher) => hex(&hasher.finalize()),
            Hasher::Lfs(hasher) => hex(&hasher.finalize()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_those_of_git_and_lfs() {
        let git = Etag::new("ce013625030ba8dba906f756967f9e9ca394464a").unwrap();
        let lfs = Etag::new("5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03").unwrap();
        for etag in [git, lfs] {
            let mut hasher = Hasher::new(&etag, 6);
            hasher.read(&mut &b"hello\n"[..], &mut |_| {}).unwrap();
            assert_eq!(hasher.finish(), etag);
        }
    }

    #[test]
    fn only_checksums_are_etags() {
        let good = "0123456789abcdef0123456789abcdef01234567";
        assert_eq!(Etag::from_header(&format!("W/\"{good}\"")), Etag::new(good));
        for bad in ["", "abc", "../../etc", &good.to_uppercase(), &good.replace('0', "/")] {
            assert_eq!(Etag::new(bad), None, "{bad}");
        }
    }
}
