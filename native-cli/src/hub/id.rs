//! Names on the hub. They are checked strictly, because they become parts of paths and addresses.

/// A repository: `owner/name`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Id {
    pub owner: String,
    pub name: String,
}

impl Id {
    /// Reads `owner/name` by the hub's own rules. Every other text gives none.
    pub fn new(text: &str) -> Option<Id> {
        let (owner, name) = text.split_once('/')?;
        let plain = |part: &str| {
            let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
            let edge = |c: char| matches!(c, '-' | '.');
            !part.is_empty()
                && part.chars().all(allowed)
                && !part.starts_with(edge)
                && !part.ends_with(edge)
                && !part.contains("--")
                && !part.contains("..")
        };
        let good = text.len() <= 96 && plain(owner) && plain(name) && !name.ends_with(".git");
        good.then(|| Id { owner: owner.to_owned(), name: name.to_owned() })
    }
}

impl std::fmt::Display for Id {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "{}/{}", self.owner, self.name)
    }
}

/// A commit: 40 hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit(String);

impl Commit {
    /// Reads a commit. Every other text gives none.
    pub fn new(text: &str) -> Option<Commit> {
        is_hex(text, 40).then(|| Commit(text.to_owned()))
    }

    /// The hexadecimal digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Whether the text is this many lower-case hexadecimal digits.
pub fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.chars().all(|c| c.is_ascii_digit() || ('a'..='f').contains(&c))
}

/// Whether this may be the name of a branch, a tag or a commit.
pub fn is_revision(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let plain = |part: &str| !part.is_empty() && part.chars().all(allowed) && !part.starts_with(['.', '-']);
    text.len() <= 200 && text.split('/').all(plain) && !text.contains("..")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_strict() {
        assert_eq!(Id::new("nvidia/Nemotron-Flash-1B").unwrap().to_string(), "nvidia/Nemotron-Flash-1B");
        let bad = ["", "a", "a/", "/a", "a/b/c", "../b", "a/..", "./a", "a/.b", "-a/b", "a/b-", "a/b--c", "a b/c"];
        for text in bad.into_iter().chain(["a/b?c", "a/b#c", "a\\b", "~/b", "C:/b", "a/b.git", "ä/b", "a/b\n"]) {
            assert_eq!(Id::new(text), None, "{text}");
        }
    }

    #[test]
    fn revisions_are_strict() {
        for text in ["main", "v1.0", "refs/pr/1", "0123456789012345678901234567890123456789"] {
            assert!(is_revision(text), "{text}");
        }
        for text in ["", "/main", "main/", "a//b", "..", "a/../b", ".git", "a b", "a?b", "a%2fb", "-x"] {
            assert!(!is_revision(text), "{text}");
        }
    }
}
