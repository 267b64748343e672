//! The only module that writes to stdout and stderr.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::borrow::Cow;
use std::io::{self, BufRead as _, ErrorKind, IsTerminal as _, Read as _, Write as _};

/// The reader of stdout has closed the pipe.
#[derive(Debug, thiserror::Error)]
#[error("the reader of the output went away")]
pub struct Closed;

/// Writes to stdout without buffering.
///
/// # Errors
/// [`Closed`] if the reader has closed the pipe. Other errors have a message.
pub fn print(text: &str) -> anyhow::Result<()> {
    let text = if io::stdout().is_terminal() { harmless(text) } else { Cow::Borrowed(text) };
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).map_err(|error| match error.kind() {
        ErrorKind::BrokenPipe => Closed.into(),
        _ => anyhow::anyhow!("cannot write the output: {error}. Check the disk or the program that reads it"),
    })
}

/// Writes a line to stderr. A failure to write is ignored.
pub fn note(line: &str) {
    let _ = writeln!(io::stderr(), "{}", harmless(line));
}

/// Whether stderr is a terminal, so that a person reads it.
pub fn watched() -> bool {
    io::stderr().is_terminal()
}

/// Writes a line to stderr if a person reads it.
pub fn note_if_watched(line: &str) {
    if watched() {
        note(line);
    }
}

/// Asks the user a question that is answered by yes or no. None if nobody can answer.
pub fn confirm(question: &str) -> Option<bool> {
    if !watched() || !io::stdin().is_terminal() {
        return None;
    }
    let _ = write!(io::stderr(), "{} [y/N] ", harmless(question)).and_then(|()| io::stderr().flush());
    let mut answer = String::new();
    let read = io::stdin().lock().take(1000).read_line(&mut answer);
    Some(read.is_ok() && matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}

/// Makes text from a model or a file harmless for the terminal: control characters other than line breaks and tabs are replaced
/// by visible ones.
fn harmless(text: &str) -> Cow<'_, str> {
    let steers = |c: char| c.is_control() && !matches!(c, '\n' | '\t');
    if !text.contains(steers) {
        return Cow::Borrowed(text);
    }
    let shown = |c: char| if steers(c) { c.escape_default().collect() } else { String::from(c) };
    Cow::Owned(text.chars().map(shown).collect())
}

/// A progress bar on stderr, drawn only on a terminal.
pub fn bar(what: &'static str, total: u64, bytes: bool) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr()).with_message(what);
    let count = match bytes {
        true => "{binary_bytes} of {binary_total_bytes}, {binary_bytes_per_sec}, {eta} left",
        false => "{pos} of {len} tokens",
    };
    let style = ProgressStyle::with_template(&format!("{{msg}} [{{bar:30}}] {count}"));
    bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_shown() {
        assert_eq!(harmless("a\tb\n"), "a\tb\n");
        assert_eq!(harmless("\x1b[2Jä\u{9b}1m"), "\\u{1b}[2Jä\\u{9b}1m");
    }
}
