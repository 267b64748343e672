//! What the page says first: the comparison in sentences.

use super::columns::Column;
use super::ratio::{Ratio, digits};
use super::sections::{browser, parts, speed};
use super::table::{Cell, Comparison, Group, Line};
use super::units::{self, Unit, share};
use nemoflash::bench::report::{Clock, Kind};
use serde::Serialize;

/// Sentences.
#[derive(Debug, Default, Serialize)]
pub struct Findings {
    /// The most important one.
    pub headline: String,
    /// What it is about.
    pub about: String,
    /// More of them.
    pub more: Vec<String>,
    /// Rows that are no results.
    pub failed: Vec<String>,
}

/// Columns of a line by their clock: wall, unless only the device's is there.
type Ranked<'a> = Vec<(usize, &'a Cell, f64)>;

/// What there is to say.
pub fn findings(comparison: &Comparison) -> Findings {
    let mut found = Findings { failed: failed(comparison), ..Findings::default() };
    let Some((group, line)) = main(comparison, Kind::Decode).or_else(|| main(comparison, Kind::Prefill)) else {
        found.headline = match comparison.lines().any(|(_, line)| line.good().next().is_some()) {
            true => "No speed of tokens was measured".into(),
            false => "No device gave a result".into(),
        };
        return found;
    };
    let name = |at: usize| brief(&comparison.columns, at);
    found.headline = headline(&ranked(comparison, line), &name);
    found.about = format!("{}: {} ({})", line.test.name, speed::describe(line), group.title);
    if line.test.kind != Kind::Prefill
        && let Some((_, line)) = main(comparison, Kind::Prefill)
    {
        found.more.push(format!(
            "{}, {}: {}.",
            line.test.name,
            speed::describe(line),
            sentence(&ranked(comparison, line), &name)
        ));
    }
    found.more.extend(deeper(comparison, group, line, &name));
    for pair in browser::pairs(&comparison.columns) {
        if let Some(ratio) = browser::ratio(line, pair).filter(|ratio| ratio.sure) {
            let (here, there) = (name(pair.0), name(pair.1));
            let says = match ratio.differs() {
                true => format!("{there} reaches {} of the speed of {here}", share(ratio.times)),
                false => format!("no difference between {there} and {here}"),
            };
            found.more.push(format!("In the browser: {says} ({}).", line.test.name));
        }
    }
    for (at, cell, _) in line.good() {
        if let Some((part, of)) = parts::largest(&cell.row) {
            found.more.push(format!("On {}, {part} takes {} of the device's time for a token.", name(at), share(of)));
        }
    }
    found
}

/// The test of a kind that most devices have a result of; of several, the plainest.
fn main(comparison: &Comparison, kind: Kind) -> Option<(&Group, &Line)> {
    let lines = comparison.lines().filter(|(_, line)| line.test.kind == kind);
    let counted = lines.map(|found| (ranked(comparison, found.1).len(), found)).filter(|(count, _)| *count > 0);
    // Of equals, `max_by_key` takes the last.
    counted.collect::<Vec<_>>().into_iter().rev().max_by_key(|(count, _)| *count).map(|(_, found)| found)
}

/// Results by speed, the fastest first, of one clock.
fn ranked<'a>(comparison: &'a Comparison, line: &'a Line) -> Ranked<'a> {
    let of = |clock: Clock| {
        let good = line.good().filter(|(at, ..)| comparison.columns[*at].clock == clock);
        good.map(|(at, cell, value)| (at, cell, value.median)).collect::<Ranked>()
    };
    let mut ranked = of(Clock::Wall);
    if ranked.is_empty() {
        ranked = of(Clock::Device);
    }
    ranked.sort_by(|a, b| b.2.total_cmp(&a.2));
    if line.counts() == Unit::Seconds {
        ranked.reverse();
    }
    ranked
}

/// The fastest against the one behind it.
fn headline(ranked: &Ranked, name: &impl Fn(usize) -> String) -> String {
    let [best, rest @ ..] = ranked.as_slice() else { return String::new() };
    let rate = format!("{} tokens per second", units::digits(best.2));
    let Some(next) = rest.first() else { return format!("{}: {rate}", name(best.0)) };
    let last = rest.last().unwrap_or(next);
    let against = |other: &(usize, &Cell, f64)| Ratio::of(&other.1.row.time.samples, &best.1.row.time.samples);
    match against(next) {
        Some(ratio) if ratio.differs() && rest.len() == 1 => {
            format!("{} is {} times as fast as {}", name(best.0), digits(ratio.times), name(next.0))
        }
        Some(ratio) if ratio.differs() => {
            let times = against(last).map_or(f64::NAN, |ratio| ratio.times);
            format!("{} is fastest: {rate}, {} times as fast as {}", name(best.0), digits(times), name(last.0))
        }
        Some(ratio) if ratio.sure => {
            format!("No difference between {} and {}: {rate}", name(best.0), name(next.0))
        }
        _ => format!("{} reaches {rate}; too few samples to rank", name(best.0)),
    }
}

fn sentence(ranked: &Ranked, name: &impl Fn(usize) -> String) -> String {
    let rates: Vec<String> =
        ranked.iter().take(4).map(|(at, _, rate)| format!("{} {}", name(*at), units::digits(*rate))).collect();
    format!("{} tokens per second", rates.join(", "))
}

/// What a long text in front costs the device of the headline.
fn deeper(comparison: &Comparison, group: &Group, line: &Line, name: &impl Fn(usize) -> String) -> Vec<String> {
    let same = |other: &&Line| {
        let (a, b) = (&other.test, &line.test);
        a.kind == b.kind && a.batch == b.batch && a.tokens == b.tokens && a.depth > b.depth
    };
    let Some(deepest) = group.tests.iter().filter(same).max_by_key(|other| other.test.depth) else { return vec![] };
    let ranked = ranked(comparison, line);
    let told = ranked.iter().take(3).filter_map(|(at, cell, _)| {
        let deep = deepest.cells[*at].as_ref().filter(|deep| deep.good().is_some())?;
        let ratio = Ratio::of(&cell.row.time.samples, &deep.row.time.samples)?;
        let depth = units::thousands(f64::from(deepest.test.depth));
        Some(match (ratio.differs(), ratio.sure) {
            (true, _) => format!("Behind {depth} tokens {} keeps {} of its speed.", name(*at), share(ratio.times)),
            (_, true) => format!("Behind {depth} tokens {} is as fast as at the beginning.", name(*at)),
            _ => return None,
        })
    });
    told.collect()
}

/// A column's shortest name that no other has.
fn brief(columns: &[Column], at: usize) -> String {
    let alike = columns.iter().filter(|column| column.adapter == columns[at].adapter).count();
    let Column { adapter, label, .. } = &columns[at];
    if alike == 1 { adapter.clone() } else { label.replacen(", ", " (", 1) + ")" }
}

fn failed(comparison: &Comparison) -> Vec<String> {
    let rows = comparison.lines().flat_map(|(_, line)| line.filled().map(move |(at, cell)| (line, at, cell)));
    let rows = rows.filter(|(_, _, cell)| cell.failed);
    rows.map(|(line, at, cell)| format!("{}, {}: {}", comparison.columns[at].label, line.test.name, cell.verdict))
        .collect()
}
