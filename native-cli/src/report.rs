//! How a run ends: one line on stderr, and the exit code.

use crate::{quiet, terminal};
use nemoflash::Error;
use std::io::{self, Write as _};
use std::process::ExitCode;

/// The exit codes, as `--help` prints them.
pub const EXIT_CODES: &str = "\
Exit codes:
  0    done; also if the reader of the output ended first (`nemoflash ... | head`)
  1    failed; the message on stderr begins with `error:` and says what to do
  2    wrong usage: an unknown option, or a value out of its range
  101  a bug in nemoflash; please report the line on stderr
  130  stopped by Ctrl-C; what was written before is kept";

/// How a run ended without an error that stopped it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Everything was done.
    Done,
    /// A part of the run failed. Each failure was printed when it happened.
    Failed,
    /// Ctrl-C stopped the run.
    Interrupted,
}

/// Options that do not go together, and other mistakes in how the program was called.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(pub String);

/// Prints the error of a run, if there is one, and returns the exit code.
pub fn exit(result: anyhow::Result<Exit>) -> ExitCode {
    let error = match result {
        Ok(Exit::Done) => return ExitCode::SUCCESS,
        Ok(Exit::Failed) => return ExitCode::from(1),
        Ok(Exit::Interrupted) => return ExitCode::from(130),
        Err(error) => error,
    };
    if error.is::<terminal::Closed>() {
        return ExitCode::SUCCESS;
    }
    print_error(&error);
    let usage = error.is::<Usage>() || matches!(error.downcast_ref(), Some(Error::Parameter { .. }));
    ExitCode::from(if usage { 2 } else { 1 })
}

/// Prints an error without ending the run.
pub fn print_error(error: &anyhow::Error) {
    terminal::note(&format!("error: {}", cut(&format!("{error:#}"))));
}

/// A message may quote what a file says, of any length. The middle of a long one is left out: the end says what to do.
fn cut(message: &str) -> String {
    const MOST: usize = 16_000;
    if message.len() <= MOST {
        return message.to_owned();
    }
    let begin = message.floor_char_boundary(MOST / 2);
    let end = message.ceil_char_boundary(message.len() - MOST / 2);
    format!("{} … {}", &message[..begin], &message[end..])
}

/// Prints what clap returns: help and version on stdout, errors on stderr.
pub fn usage(error: &clap::Error) -> ExitCode {
    // If printing fails, there is no place to report that.
    let _ = error.print();
    let _ = io::stdout().flush();
    ExitCode::from(if error.use_stderr() { 2 } else { 0 })
}

/// Prints a panic, which is a bug of this program, as one line that can be reported, without a backtrace.
pub fn panics_in_one_line() {
    std::panic::set_hook(Box::new(|info| {
        let what = info.payload_as_str().unwrap_or("no message").replace('\n', " ");
        let place = info.location().map(|place| format!(" ({}:{})", place.file(), place.line())).unwrap_or_default();
        quiet::end();
        terminal::note(&format!("error: this is a bug in nemoflash: {what}{place}. Please report it"));
    }));
}

#[cfg(test)]
mod tests {
    use super::cut;

    #[test]
    fn long_messages_are_cut() {
        assert_eq!(cut("short"), "short");
        let long = format!("begin{}end", "é".repeat(1 << 20));
        let short = cut(&long);
        assert!(short.len() < 16_100 && short.starts_with("beginé") && short.ends_with("éend"), "{}", short.len());
    }
}
