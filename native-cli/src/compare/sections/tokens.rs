//! Tables that show whether the devices gave the same tokens.

use crate::compare::agree::{gate, sentence};
use crate::compare::columns::key;
use crate::compare::table::Comparison;
use crate::html::chart::Key;
use nemoflash_bench::report::Gate;
use serde::Serialize;

/// The table of one model.
#[derive(Debug, Serialize)]
pub struct Tokens {
    title: String,
    sentence: Option<String>,
    rows: Vec<Answer>,
}

#[derive(Debug, Serialize)]
struct Answer {
    key: Key,
    gate: &'static str,
    /// Whether the golden check failed.
    wrong: bool,
    words: String,
    /// Whether the tokens differ from those of the first device.
    other: bool,
}

/// A table for each model for which at least one device made the golden check or gave tokens.
pub fn tokens(comparison: &Comparison) -> Vec<Tokens> {
    let asked = comparison
        .groups
        .iter()
        .filter(|group| group.said.iter().flatten().any(|said| said.gate != Gate::NotRun || said.tokens > 0));
    let table = asked.map(|group| Tokens {
        title: group.title.clone(),
        sentence: sentence(&group.said, &comparison.columns),
        rows: (0..)
            .zip(&group.said)
            .filter_map(|(at, said)| {
                let said = said.as_ref()?;
                Some(Answer {
                    key: key(&comparison.columns, at),
                    gate: gate(said.gate),
                    wrong: said.gate == Gate::Failed,
                    words: said.words.clone(),
                    other: said.differs.is_some(),
                })
            })
            .collect(),
    });
    table.collect()
}
