//! Reads JSON that serde_json refuses: Python writes `NaN` and `Infinity`, and some editors begin a file with a byte
//! order mark.

use std::borrow::Cow;

/// The text without the byte order mark that some editors write in front.
pub fn without_mark(text: &[u8]) -> &[u8] {
    text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text)
}

/// The JSON text without its byte order mark, and with Python's words `NaN`, `Infinity` and `-Infinity` as strings. So
/// such a value does no harm under a key that is not used. Under a key that is used, the error names the key, because a
/// string is not a number.
pub fn plain(text: &[u8]) -> Cow<'_, [u8]> {
    const WORDS: [&[u8]; 3] = [b"NaN", b"Infinity", b"-Infinity"];
    let text = without_mark(text);
    let (mut out, mut copied, mut at, mut inside) = (vec![], 0, 0, false);
    while let Some(&byte) = text.get(at) {
        match byte {
            b'"' => inside = !inside,
            // The character after a backslash is part of the string, even if it is a quotation mark.
            b'\\' if inside => at += 1,
            _ if inside => {}
            _ => {
                if let Some(word) = WORDS.into_iter().find(|word| text[at..].starts_with(word)) {
                    out.extend_from_slice(&text[copied..at]);
                    out.push(b'"');
                    out.extend_from_slice(word);
                    out.push(b'"');
                    copied = at + word.len();
                    at = copied - 1;
                }
            }
        }
        at += 1;
    }
    if copied == 0 {
        return Cow::Borrowed(text);
    }
    out.extend_from_slice(&text[copied..]);
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_python_become_strings_outside_of_strings() {
        let cases = [
            (r#"{"a": [0.0, Infinity]}"#, r#"{"a": [0.0, "Infinity"]}"#),
            (r#"{"a": -Infinity, "b": NaN}"#, r#"{"a": "-Infinity", "b": "NaN"}"#),
            (r#"{"Infinity": "NaN \" NaN"}"#, r#"{"Infinity": "NaN \" NaN"}"#),
            (r#"{"a": "\\", "b": NaN}"#, r#"{"a": "\\", "b": "NaN"}"#),
            (r#"{"a": 1}"#, r#"{"a": 1}"#),
            ("", ""),
            ("\"\\", "\"\\"),
        ];
        for (text, want) in cases {
            assert_eq!(String::from_utf8_lossy(&plain(text.as_bytes())), want);
        }
        assert_eq!(&*plain(b"\xef\xbb\xbf{}"), b"{}");
    }
}
