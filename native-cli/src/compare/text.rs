//! The comparison as a text for the terminal.

use super::agree::sentence;
use super::table::{Comparison, Group, Line};
use crate::devices;
use crate::html::units::Unit;
use crate::html::units::cut;

/// Widest column, in characters.
const WIDEST: usize = 44;
/// Longest text of an error or a warning, in characters.
const LONGEST: usize = 500;

/// The whole text: what the letters of the columns mean, then a table for each model.
pub fn table(comparison: &Comparison) -> String {
    let mut out = String::new();
    for column in &comparison.columns {
        out += &format!("{}  {}\n", column.letter, line(&column.label));
    }
    for group in &comparison.groups {
        out += &format!("\n{}\n", line(&group.title));
        let shown: Vec<usize> = (0..comparison.columns.len())
            .filter(|&at| group.tests.iter().any(|line| line.cells[at].is_some()))
            .collect();
        let head = |&at: &usize| {
            let column = &comparison.columns[at];
            format!("{} {}", column.letter, line(&column.adapter))
        };
        let mut rows = vec![[vec!["TEST".into(), "UNIT".into()], shown.iter().map(head).collect()].concat()];
        for test in &group.tests {
            rows.extend(lines(test, &shown));
        }
        out += &devices::table(&rows);
        out += &tokens(comparison, group);
        out += &whole(comparison, &group.tests);
    }
    out
}

/// Says whether the devices gave the same tokens for one model.
fn tokens(comparison: &Comparison, group: &Group) -> String {
    sentence(&group.said, &comparison.columns).map_or(String::new(), |text| format!("{}\n", line(&text)))
}

/// What [`tokens`] says about every model. If there are several models, each text begins with the model's name.
pub fn agreement(comparison: &Comparison) -> String {
    let several = comparison.groups.len() > 1;
    let texts = comparison.groups.iter().map(|group| (group, tokens(comparison, group)));
    let told = texts.filter(|(_, text)| !text.is_empty());
    told.map(|(group, text)| if several { format!("{}: {text}", line(&group.title)) } else { text }).collect()
}

/// The unit of a line. Times get the unit that fits them.
fn unit(test: &Line) -> &'static str {
    match test.counts() {
        Unit::TokensPerSecond => test.unit,
        Unit::Seconds => "",
    }
}

/// Two lines for a test: the values, and the verdicts.
fn lines(test: &Line, shown: &[usize]) -> [Vec<String>; 2] {
    let mut two = [vec![cut(&line(&test.test.name), WIDEST), unit(test).into()], vec![String::new(), String::new()]];
    for &at in shown {
        let (value, verdict) = match &test.cells[at] {
            None => ("-".into(), String::new()),
            Some(cell) => {
                let value = cell.value.map(|value| {
                    let (median, interval) = test.counts().interval(&value);
                    format!("{median} ({interval})")
                });
                (value.unwrap_or_else(|| "-".into()), cut(&line(&cell.verdict), WIDEST))
            }
        };
        two[0].push(value);
        two[1].push(verdict);
    }
    two
}

/// The texts that do not fit in the table: errors and warnings. Each text comes once, with the places where it occurs.
fn whole(comparison: &Comparison, tests: &[Line]) -> String {
    let mut found: Vec<(String, Vec<String>)> = vec![];
    for test in tests {
        for (at, cell) in test.filled() {
            let verdict = Some(line(&cell.verdict)).filter(|verdict| verdict.chars().count() > WIDEST);
            let warnings = cell.row.warnings.iter().map(|warning| format!("warning: {}", line(warning)));
            let place = format!("{} {}", comparison.columns[at].letter, line(&test.test.name));
            for text in verdict.into_iter().chain(warnings) {
                match found.iter_mut().find(|(known, _)| *known == text) {
                    Some((_, places)) => places.push(place.clone()),
                    None => found.push((text, vec![place.clone()])),
                }
            }
        }
    }
    found
        .into_iter()
        .map(|(text, places)| format!("{}\n  {}\n", cut(&text, LONGEST), cut(&places.join(", "), LONGEST)))
        .collect()
}

/// A text from a file, on one line of the terminal.
fn line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
