//! Expands `~` and `$NAME` in paths of environment variables. A shell expands them, but not in quotes, and a Dockerfile or a
//! `.env` file does not. The rules are those of the hub's Python tools (`os.path.expanduser`, then `os.path.expandvars`).

use anyhow::{Result, bail};
use std::env;
use std::path::{Path, PathBuf};

/// A path with its `~` and its variables replaced. `name` is the variable that holds it, for messages.
///
/// # Errors
/// If the path begins with the home folder of another user (`~name`), or if the user's own home folder is not known.
pub fn path(name: &str, value: &str) -> Result<PathBuf> {
    let own = etcetera::home_dir().ok();
    let with_home = home(name, value, own.as_deref())?;
    Ok(variables(&with_home, cfg!(windows), &|name| env::var(name).ok()).into())
}

/// Replaces `~` at the beginning.
fn home(name: &str, value: &str, own: Option<&Path>) -> Result<String> {
    let Some(rest) = value.strip_prefix('~') else { return Ok(value.to_owned()) };
    if !rest.is_empty() && !rest.starts_with(['/', std::path::MAIN_SEPARATOR]) {
        bail!("{name} is `{value}`. The home folder of another user is not looked up: write the whole path");
    }
    match own.and_then(Path::to_str) {
        Some(own) if rest.is_empty() => Ok(own.to_owned()),
        Some(own) => Ok(format!("{}{rest}", own.trim_end_matches('/'))),
        None => bail!("{name} is `{value}`, and there is no home folder. Write the whole path"),
    }
}

/// Replaces `$NAME` and `${NAME}`, and on Windows `%NAME%`, too. An unknown variable stays as it is written. The value of a
/// variable is not expanded again.
fn variables(value: &str, percent: bool, known: &dyn Fn(&str) -> Option<String>) -> String {
    let (mut out, mut rest) = (String::new(), value);
    while let Some(at) = rest.find(|c| c == '$' || (percent && c == '%')) {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let (name, len) = reference(rest);
        match known(name).filter(|_| !name.is_empty()) {
            Some(found) => out.push_str(&found),
            None => out.push_str(&rest[..len]),
        }
        rest = &rest[len..];
    }
    out + rest
}

/// The name in a reference at the beginning of `text`, and the length of the reference. The name is empty if there is no
/// reference.
fn reference(text: &str) -> (&str, usize) {
    let enclosed = |open: &str, close: char| {
        let inner = text.strip_prefix(open)?;
        let name = &inner[..inner.find(close)?];
        Some((name, open.len() + name.len() + 1))
    };
    let plain = || {
        let name = &text[1..];
        let end = name.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(name.len());
        (&name[..end], 1 + end)
    };
    match text.starts_with('%') {
        true => enclosed("%", '%').unwrap_or(("", 1)),
        false => enclosed("${", '}').unwrap_or_else(plain),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(name: &str) -> Option<String> {
        [("A", "one"), ("LONG_1", "$A"), ("SP ACE", "s")].iter().find(|(n, _)| *n == name).map(|(_, v)| v.to_string())
    }

    /// Expected values are those of Python's `os.path.expandvars` and `os.path.expanduser`.
    #[test]
    fn as_python_does() {
        let cases = [
            ("$A/x", "one/x"),
            ("/a/${A}b$A", "/a/onebone"),
            ("$AB", "$AB"),
            ("$LONG_1/$A", "$A/one"),
            ("${SP ACE}", "s"),
            ("$", "$"),
            ("$$A", "$one"),
            ("${A", "${A"),
            ("${}", "${}"),
            ("${NO}/x", "${NO}/x"),
            ("a$-b", "a$-b"),
            ("%A%", "%A%"),
            ("ä$A", "äone"),
        ];
        for (value, expanded) in cases {
            assert_eq!(variables(value, false, &known), expanded, "{value}");
        }
        assert_eq!(variables("%A%/%NO%/$A", true, &known), "one/%NO%/one");
        let own = Some(Path::new("/home/me"));
        assert_eq!(home("V", "~", own).unwrap(), "/home/me");
        assert_eq!(home("V", "~/x", own).unwrap(), "/home/me/x");
        assert_eq!(home("V", "/x/~", own).unwrap(), "/x/~");
        assert_eq!(home("V", "~/x", Some(Path::new("/"))).unwrap(), "/x");
        let (other, none) = (home("V", "~you/x", own), home("V", "~/x", None));
        assert!(other.unwrap_err().to_string().contains("another user"));
        assert!(none.unwrap_err().to_string().contains("no home folder"));
    }
}
