//! Whether devices agree: the golden check of each, and the tokens that a model gave on it after the fixed prompt.

use super::columns::Column;
use super::table::Line;
use nemoflash_bench::report::Gate;
use serde::Serialize;

/// What a model said on the device of a column.
#[derive(Clone, Debug, Serialize)]
pub struct Said {
    /// The golden check of the device: the worst result of its rows.
    pub gate: Gate,
    /// How many tokens were compared with those of the first device of the group whose golden check did not fail.
    pub tokens: usize,
    /// The number of the first token that differs, counted from 1.
    pub differs: Option<usize>,
    /// The result of the comparison as a text.
    pub words: String,
}

/// For each column: what the model said there, or none if the column has no row in these lines.
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
            (0, _) => "none given".into(),
            (count, _) if first.is_none_or(|first| first == at) => format!("{count} tokens"),
            (_, None) => format!("the same {tokens} as {than}"),
            (_, Some(differs)) => format!("DIFFERENT from {than}, from token {differs} of {tokens} on"),
        };
        Some(Said { gate, tokens, differs, words })
    };
    (0..columns.len()).map(one).collect()
}

/// A sentence that says whether the devices of a group gave the same tokens. None if no device gave any, or if there is only
/// one device.
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
        (0, _) => format!("Only {} gave tokens: there are no others to compare them with", name(first.0)),
        (more, true) => format!("All {} devices say the same {tokens} tokens", more + 1),
        (_, false) => {
            format!("Not all devices say the same tokens. These differ from {}: {}", name(first.0), others.join(", "))
        }
    };
    if silent > 0 {
        text += &format!("; {silent} gave none");
    }
    Some(text + ".")
}

/// The result of a golden check, as it stands in tables.
pub fn gate(gate: Gate) -> &'static str {
    match gate {
        Gate::Passed => "right",
        Gate::Failed => "WRONG",
        Gate::NotRun => "not checked",
    }
}
