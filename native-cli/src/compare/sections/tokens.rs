//! Whether the devices say the same.

use crate::compare::agree::{gate, sentence};
use crate::compare::columns::key;
use crate::compare::table::Comparison;
use crate::html::chart::Key;
use nemoflash_bench::report::Gate;
use serde::Serialize;

/// One model's table.
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
    /// Whether the golden tokens are wrong.
    wrong: bool,
    words: String,
    /// Whether they are others than those of the first device.
    other: bool,
}

/// A table for each model of which any device was asked for tokens.
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
