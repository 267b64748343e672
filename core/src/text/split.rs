//! The pre-tokenizer: splits a text by patterns before it is merged into tokens.

use std::{borrow::Cow, sync::OnceLock};

use fancy_regex::{Error as RegexError, Match, Regex, RegexBuilder, RuntimeError};

use super::wrong::tokenizer as bad;
use crate::{Error, Result};

/// The most bytes of all patterns of a file. The longest ones in use have about 600.
const MAX_PATTERNS: usize = 1024;
/// The most bytes of one compiled automaton. A pattern can contain some hundred of them, so this bounds the time and
/// memory of loading to about a second and 100 MB. Published patterns need 512 KiB.
const MAX_AUTOMATON: usize = 768 << 10;
/// The most backtracks of one match in the first try, and in the second try. A run of capitals needs as many as it has
/// letters, and ordinary text a handful.
const QUICK: usize = 2_000;
const PATIENT: usize = 1_000_000;

/// How many second tries a text may have. They are enough for honest patterns, whose backtracking grows with the length
/// of the match, and few enough that all backtracking together is linear in the text. A crafted pattern can still look
/// ahead to the end of the text at every character. That is quadratic: about a second for 16 KiB.
pub(super) struct Budget(usize);

impl Budget {
    pub(super) fn new(text_bytes: usize) -> Budget {
        Budget(16 + text_bytes / 250)
    }
}

/// Which pieces a step keeps: `Isolated` keeps all of them, `Removed` one kind.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Keep {
    All,
    Matches,
    Gaps,
}

struct Step {
    quick: Regex,
    /// The same pattern with a larger backtrack limit. Few texts need it.
    patient: OnceLock<Option<Regex>>,
    keep: Keep,
}

/// The split steps in order, then the step of `ByteLevel`.
#[derive(Default)]
pub(super) struct Splitter {
    steps: Vec<Step>,
    /// `ByteLevel` puts a space in front of every piece that has none, and splits after that.
    prefix_space: bool,
    last: Option<Step>,
}

impl Splitter {
    /// Adds a `Split`.
    pub(super) fn push(&mut self, pattern: &str, keep: Keep) -> Result<()> {
        let total = pattern.len() + self.steps.iter().map(|s| s.quick.as_str().len()).sum::<usize>();
        if total > MAX_PATTERNS {
            return Err(bad(format!("pre_tokenizer: patterns of {total} bytes are over {MAX_PATTERNS}")));
        }
        self.steps.push(Step::new(pattern, keep)?);
        Ok(())
    }

    /// Sets the options of `ByteLevel`: whether it adds a space, and its pattern.
    pub(super) fn byte_level(&mut self, prefix_space: bool, pattern: Option<&str>) -> Result<()> {
        self.prefix_space = prefix_space;
        self.last = pattern.map(|p| Step::new(p, Keep::All)).transpose()?;
        Ok(())
    }

    /// Calls `f` with the pieces of `text` in order.
    pub(super) fn split(&self, text: &str, budget: &mut Budget, mut f: impl FnMut(&str) -> Result<()>) -> Result<()> {
        let mut pieces = vec![text];
        for step in &self.steps {
            let mut next = Vec::new();
            for piece in pieces {
                step.split(piece, budget, &mut next)?;
            }
            pieces = next;
        }
        for piece in pieces {
            let piece = match self.prefix_space && !piece.starts_with(' ') {
                true => Cow::Owned(format!(" {piece}")),
                false => Cow::Borrowed(piece),
            };
            match &self.last {
                None => f(&piece)?,
                Some(step) => {
                    let mut parts = Vec::new();
                    step.split(&piece, budget, &mut parts)?;
                    parts.into_iter().try_for_each(&mut f)?;
                }
            }
        }
        Ok(())
    }
}

fn compile(pattern: &str, backtracks: usize) -> Result<Regex, fancy_regex::Error> {
    RegexBuilder::new(pattern).backtrack_limit(backtracks).delegate_size_limit(MAX_AUTOMATON).build()
}

impl Step {
    fn new(pattern: &str, keep: Keep) -> Result<Step> {
        let quick = compile(pattern, QUICK).map_err(|e| bad(format!("pre_tokenizer: pattern: {e}")))?;
        Ok(Step { quick, patient: OnceLock::new(), keep })
    }

    /// Appends the pieces of `text`. Empty pieces are left out.
    fn split<'t>(&self, text: &'t str, budget: &mut Budget, out: &mut Vec<&'t str>) -> Result<()> {
        let (mut done, mut at) = (0, 0);
        while let Some(m) = self.find(text, at, budget)? {
            if done < m.start() && self.keep != Keep::Matches {
                out.push(&text[done..m.start()]);
            }
            if m.start() < m.end() && self.keep != Keep::Gaps {
                out.push(m.as_str());
            }
            done = m.end();
            // An empty match also splits. The search continues after the next character.
            at = done;
            if m.start() == m.end() {
                let Some(c) = text[done..].chars().next() else { break };
                at += c.len_utf8();
            }
        }
        if done < text.len() && self.keep != Keep::Matches {
            out.push(&text[done..]);
        }
        Ok(())
    }

    fn find<'t>(&self, text: &'t str, at: usize, budget: &mut Budget) -> Result<Option<Match<'t>>> {
        let mut found = self.quick.find_from_pos(text, at);
        let gave_up = matches!(&found, Err(RegexError::RuntimeError(RuntimeError::BacktrackLimitExceeded)));
        if gave_up && budget.0 > 0 {
            budget.0 -= 1;
            let patient = self.patient.get_or_init(|| compile(self.quick.as_str(), PATIENT).ok());
            found = patient.as_ref().unwrap_or(&self.quick).find_from_pos(text, at);
        }
        let refuse = |why| Error::Prompt {
            why: format!("the split pattern of tokenizer.json gives up on it ({why})"),
            next: "Break up very long words or runs of one kind of character, or use the unmodified tokenizer.json",
        };
        match found.map_err(|e| refuse(e.to_string()))? {
            // `\K` can move the start of a match behind its end, or into the previous match.
            Some(m) if m.start() < at || m.end() < m.start() => Err(refuse("its matches overlap".to_owned())),
            found => Ok(found),
        }
    }
}
