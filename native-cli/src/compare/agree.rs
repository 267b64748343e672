//! Whether devices say the same: the golden tokens of each, and what the model said on it.

use super::columns::Column;
use super::table::Line;
use nemoflash_bench::report::Gate;
use serde::Serialize;

/// What a model said on the device of a column.
#[derive(Clone, Debug, Serialize)]
pub struct Said {
    /// Whether the golden tokens are right there; of several rows, the worst.
    pub gate: Gate,
    /// Tokens that could be held against those of the group's first device with right ones.
    pub tokens: usize,
    /// The first one that is another, from 1.
    pub differs: Option<usize>,
    /// In words.
    pub words: String,
}

/// One for each column that has a row in these lines.
pub fn said(lines: &[Line], columns: &[Column]) -> Vec<Option<Said>> {
    let rows = |at: usize| lines.iter().filter_map(move |line| Some(&line.cells[at].as_ref()?.row));
    let all = |at: usize| rows(at).map(|row| row.said.as_slice()).find(|said| !said.is_empty()).unwrap_or_default();
    let gate = |at: usize| {
        let worst = |gate: &Gate| [Gate::Failed, Gate::NotRun, Gate::Passed].iter().position(|other| other == gate);
        rows(at).map(|row| row.gate).min_by_key(worst)
    };
    let first = (0..columns.len()).find(|&at| gate(at).is_some_and(|gate| gate != Gate::Failed) && !all(at).is_empty());
    let one = |at: usize| {
        let (gate, said, base) = (gate(at)?, all(at), first.map(all).unwrap_or_default());
        let pairs = || base.iter().zip(said);
        let (tokens, differs) = (pairs().count(), pairs().position(|(a, b)| a != b).map(|at| at + 1));
        let than = first.map_or("", |first| columns[first].letter.as_str());
        let words = match (said.len(), differs) {
            (0, _) => "not told".into(),
            (count, _) if first.is_none_or(|first| first == at) => format!("{count} tokens"),
            (_, None) => format!("the same {tokens} as {than}"),
            (_, Some(differs)) => format!("OTHER than {than}, from token {differs} of {tokens} on"),
        };
        Some(Said { gate, tokens, differs, words })
    };
    (0..columns.len()).map(one).collect()
}

/// All of a group in one sentence; none if nobody told any token, or if a device is alone.
pub fn sentence(said: &[Option<Said>], columns: &[Column]) -> Option<String> {
    let told: Vec<(usize, &Said)> = (0..).zip(said).filter_map(|(at, said)| Some((at, said.as_ref()?))).collect();
    let silent = told.iter().filter(|(_, said)| said.tokens == 0).count();
    let mut rest: Vec<_> = told.into_iter().filter(|(_, said)| said.tokens > 0).collect();
    let first = rest.remove(rest.iter().position(|(_, said)| said.gate != Gate::Failed)?);
    if rest.is_empty() && silent == 0 {
        return None;
    }
    let name = |at: usize| &columns[at].label;
    let other = |(at, said): &(usize, &Said)| Some(format!("{} from token {} on", name(*at), said.differs?));
    let others: Vec<String> = rest.iter().filter_map(other).collect();
    let tokens = rest.iter().map(|(_, said)| said.tokens).min().unwrap_or(first.1.tokens);
    let mut text = match (rest.len(), others.is_empty()) {
        (0, _) => format!("Only {} told its tokens: there is nothing to hold them against", name(first.0)),
        (more, true) => format!("All {} devices say the same {tokens} tokens", more + 1),
        (_, false) => {
            format!("Not all devices say the same tokens: others than {} say {}", name(first.0), others.join(", "))
        }
    };
    if silent > 0 {
        text += &format!("; {silent} told none");
    }
    Some(text + ".")
}

/// In a cell of a table.
pub fn gate(gate: Gate) -> &'static str {
    match gate {
        Gate::Passed => "right",
        Gate::Failed => "WRONG",
        Gate::NotRun => "not checked",
    }
}
