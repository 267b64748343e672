//! Reads text from stdin and from files. Its length is bounded, and it must be UTF-8.

use anyhow::{Context as _, Result, bail};
use nemoflash::Error;
use std::fs::{self, File};
use std::io::{BufRead, Read as _};
use std::path::Path;

/// Longest text in bytes; the tokenizer takes no more in one prompt.
const MAX_TEXT: u64 = 2 << 20;
/// The byte order mark of UTF-8.
const MARK: &[u8] = "\u{feff}".as_bytes();

/// Reads everything up to the end, without the last line break.
///
/// # Errors
/// [`Error::Prompt`] if it is too long or not UTF-8.
pub fn whole(input: &mut dyn BufRead) -> Result<String> {
    let mut bytes = Vec::new();
    input.take(MAX_TEXT + 1).read_to_end(&mut bytes).context("cannot read stdin. Give the prompt as an argument")?;
    text(bytes)
}

/// Reads the next line without its line break. `None` at the end.
///
/// # Errors
/// As [`whole`].
pub fn next(input: &mut dyn BufRead) -> Result<Option<String>> {
    let mut bytes = Vec::new();
    let read = input.take(MAX_TEXT + 1).read_until(b'\n', &mut bytes).context("cannot read stdin")?;
    if read == 0 { Ok(None) } else { text(bytes).map(Some) }
}

fn text(mut bytes: Vec<u8>) -> Result<String> {
    if bytes.len() as u64 > MAX_TEXT {
        let why = format!("stdin has more than the {MAX_TEXT} bytes that fit in one prompt");
        return Err(Error::Prompt { why, next: "Shorten it" }.into());
    }
    for end in [b'\n', b'\r'] {
        bytes.pop_if(|last| *last == end);
    }
    utf8(bytes, "stdin")
}

/// Reads the text of an ordinary file of at most `most` bytes. Error messages call the file `shown`.
///
/// # Errors
/// If it is not an ordinary file, cannot be read, is too long, or is not UTF-8.
pub fn file(path: &Path, shown: &str, most: u64) -> Result<String> {
    // A folder, or a pipe that may never end, is refused before it is opened.
    match fs::metadata(path) {
        Ok(data) if data.is_file() => {}
        Ok(_) => bail!("{shown} is not a file. Give a UTF-8 text file"),
        Err(error) => bail!("{shown}: {error}. Check the path and its permissions"),
    }
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(most + 1).read_to_end(&mut bytes))
        .with_context(|| format!("cannot read {shown}. Check its permissions and the disk"))?;
    if bytes.len() as u64 > most {
        bail!("{shown} has more than {} MiB. Give a part of it", most >> 20);
    }
    utf8(bytes, shown)
}

/// Turns the bytes of `what` into text, without the byte order mark that some editors write in front.
///
/// # Errors
/// [`Error::Prompt`] with the place of the first byte that is not UTF-8.
pub fn utf8(mut bytes: Vec<u8>, what: &str) -> Result<String> {
    if bytes.starts_with(MARK) {
        bytes.drain(..MARK.len());
    }
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let why = format!("{what} is not UTF-8 text: byte {} is {:#04x}", at + 1, error.as_bytes()[at]);
        Error::Prompt { why, next: "Convert it first, for example with `iconv -t UTF-8`" }.into()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_break_is_dropped() {
        for (input, expected) in [
            ("a\n", "a"),
            ("a\r\n", "a"),
            ("a\n\n", "a\n"),
            ("a", "a"),
            ("\n", ""),
            ("", ""),
            ("\u{feff}a\n", "a"),
            ("a\u{feff}", "a\u{feff}"),
        ] {
            assert_eq!(whole(&mut input.as_bytes()).unwrap(), expected);
        }
    }

    #[test]
    fn lines_come_one_by_one() {
        let mut input = "a\r\n\nb".as_bytes();
        let lines = [(); 4].map(|()| next(&mut input).unwrap());
        assert_eq!(lines, [Some("a".to_owned()), Some(String::new()), Some("b".to_owned()), None]);
    }

    #[test]
    fn what_is_no_text_is_refused() {
        let error = whole(&mut &b"ab\xffcd"[..]).unwrap_err().to_string();
        assert!(error.contains("byte 3 is 0xff"), "{error}");
        let long = vec![b'a'; MAX_TEXT as usize + 1];
        assert!(whole(&mut &long[..]).is_err());
        assert!(whole(&mut &long[1..]).is_ok());
    }
}
