//! Finds stop texts in streamed text.

use std::collections::VecDeque;

use crate::{Error, Result};

/// The most stop texts, and the most bytes of one.
const MAX_STOPS: usize = 64;
const MAX_STOP: usize = 4096;

/// Finds the first of several stop texts in a text that comes in pieces.
///
/// The stop text that is complete first ends the text. If two end at the same character, the longer one counts. How the
/// text is cut into pieces makes no difference. Only text that could be the beginning of a stop text is held back. The
/// time for a piece is its length times the number of stop texts.
#[derive(Debug)]
pub struct StopMatcher {
    stops: Vec<Stop>,
    /// Characters that may belong to a stop text, and whether they may be shown.
    held: VecDeque<(char, bool)>,
    stopped: bool,
}

/// One stop text, with the tables of the Knuth-Morris-Pratt search.
#[derive(Debug)]
struct Stop {
    text: Vec<char>,
    /// For each prefix of the stop text, the length of its longest proper border.
    borders: Vec<usize>,
    /// How many characters of the stop text match the end of the text so far.
    matched: usize,
}

impl StopMatcher {
    /// A matcher for these stop texts. Without any, it never stops.
    ///
    /// # Errors
    ///
    /// [`Error::Parameter`] if one is empty or longer than 4096 bytes, or there are more than 64.
    pub fn new(stops: Vec<String>) -> Result<StopMatcher> {
        let refuse = |why| Err(Error::Parameter { name: "stop", why });
        if stops.len() > MAX_STOPS {
            return refuse(format!("{} stop strings are more than {MAX_STOPS}", stops.len()));
        }
        if stops.iter().any(String::is_empty) {
            return refuse("a stop string is empty; give at least one character".to_owned());
        }
        if let Some(long) = stops.iter().find(|s| s.len() > MAX_STOP) {
            return refuse(format!("a stop string has {} bytes, more than {MAX_STOP}", long.len()));
        }
        Ok(StopMatcher { stops: stops.into_iter().map(Stop::new).collect(), held: VecDeque::new(), stopped: false })
    }

    /// Takes more text. Returns the text that is safe to show, and whether a stop text was found. The stop text and
    /// what follows it are never returned.
    pub fn push(&mut self, text: &str) -> (String, bool) {
        self.take(text, true)
    }

    /// As [`StopMatcher::push`], for text that is searched but never shown: a special token.
    pub fn push_hidden(&mut self, text: &str) -> (String, bool) {
        self.take(text, false)
    }

    fn take(&mut self, text: &str, shown: bool) -> (String, bool) {
        if self.stopped {
            return (String::new(), true);
        }
        for c in text.chars() {
            self.held.push_back((c, shown));
            let found = self.stops.iter_mut().filter_map(|stop| stop.push(c)).max();
            if let Some(length) = found {
                self.stopped = true;
                let safe = self.release(length);
                self.held.clear();
                return (safe, true);
            }
        }
        let hold = self.stops.iter().map(|stop| stop.matched).max().unwrap_or(0);
        (self.release(hold), false)
    }

    /// Returns the held characters except the last `hold`.
    fn release(&mut self, hold: usize) -> String {
        let safe = self.held.drain(..self.held.len() - hold);
        safe.filter_map(|(c, shown)| shown.then_some(c)).collect()
    }

    /// Ends the text. Returns the text that was held back, or nothing after a stop text. The matcher can then be used
    /// for another text.
    pub fn finish(&mut self) -> String {
        self.stopped = false;
        self.stops.iter_mut().for_each(|s| s.matched = 0);
        self.release(0)
    }
}

impl Stop {
    fn new(text: String) -> Stop {
        let text: Vec<char> = text.chars().collect();
        let mut borders = vec![0; text.len()];
        let mut k = 0;
        for i in 1..text.len() {
            while k > 0 && text[k] != text[i] {
                k = borders[k - 1];
            }
            k += usize::from(text[k] == text[i]);
            borders[i] = k;
        }
        Stop { text, borders, matched: 0 }
    }

    /// Takes a character. Returns the length of the stop text if it is now complete.
    fn push(&mut self, c: char) -> Option<usize> {
        while self.matched > 0 && self.text[self.matched] != c {
            self.matched = self.borders[self.matched - 1];
        }
        self.matched += usize::from(self.text[self.matched] == c);
        (self.matched == self.text.len()).then_some(self.matched)
    }
}
