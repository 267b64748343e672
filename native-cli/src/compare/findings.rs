//! The sentences at the top of the HTML report, which sum up the comparison.

use super::agree::sentence;
use super::columns::Column;
use super::label;
use super::ratio::{Ratio, digits};
use super::sections::{browser, parts, speed};
use super::table::{Cell, Comparison, Group, Line};
use crate::html::units::{self, Unit, share};
use nemoflash_bench::report::{Clock, Kind};
use serde::Serialize;

/// The sentences.
#[derive(Debug, Default, Serialize)]
pub struct Findings {
    /// The most important one.
    pub headline: String,
    /// The test that the headline is about.
    pub about: String,
    /// Further sentences.
    pub more: Vec<String>,
    /// Rows without a valid result, with the reason.
    pub failed: Vec<String>,
}

/// Most devices that a sentence lists.
const LISTED: usize = 4;

/// A column's index, its cell, and the median in the cell.
type Place<'a> = (usize, &'a Cell, f64);
/// The columns of a line, the fastest first.
type Ranked<'a> = Vec<Place<'a>>;

/// Makes the sentences.
pub fn findings(comparison: &Comparison) -> Findings {
    let mut found = Findings { failed: failed(comparison), ..Findings::default() };
    let Some((group, line)) = main(comparison, Kind::Decode).or_else(|| main(comparison, Kind::Prefill)) else {
        found.headline = match comparison.lines().any(|(_, line)| line.good().next().is_some()) {
            true => "No speed of tokens was measured".into(),
            false => "No device gave a result".into(),
        };
        return found;
    };
    let name = |at: usize| brief(comparison, line, at);
    let ranks = ranked(comparison, line);
    found.headline = headline(&ranks, &name);
    found.about = format!("{}: {} ({})", line.test.name, speed::describe(line), group.title);
    found.more.extend(behind(&ranks, &name));
    found.more.extend(sentence(&group.said, &comparison.columns));
    if line.test.kind != Kind::Prefill
        && let Some((_, line)) = main(comparison, Kind::Prefill)
    {
        let name = |at: usize| brief(comparison, line, at);
        let rates = list(
            ranked(comparison, line).iter().map(|(at, _, rate)| format!("{} {}", name(*at), units::digits(*rate))),
        );
        found.more.push(format!("{}, {}, in tokens per second: {rates}.", line.test.name, speed::describe(line)));
    }
    found.more.extend(deeper(group, line, &ranks, &name));
    for pair in browser::pairs(&comparison.columns) {
        if let Some(ratio) = browser::ratio(line, pair).filter(|ratio| ratio.sure) {
            let (here, there) = (name(pair.0), name(pair.1));
            found.more.push(match ratio.differs() {
                true => format!("{there} reaches {} of the native speed of {here}.", share(ratio.times)),
                false => format!("There is no difference between {there} and {here}, which runs natively."),
            });
        }
    }
    let largest = ranks.iter().find_map(|(at, cell, _)| Some((at, parts::largest(&cell.row)?)));
    if let Some((at, parts)) = largest {
        found.more.push(format!("Largest shares of the device's time for a token on {}: {parts}.", name(*at)));
    }
    let shaky =
        comparison.lines().flat_map(|(_, line)| line.filled()).filter(|(_, cell)| !cell.row.warnings.is_empty());
    match shaky.count() {
        0 => {}
        1 => found.more.push("One row has a warning: see the last table.".into()),
        count => found.more.push(format!("{count} rows have warnings: see the last table.")),
    }
    found
}

/// The test of this kind for which most devices have a result. Of several such tests, the first, which is the plainest.
fn main(comparison: &Comparison, kind: Kind) -> Option<(&Group, &Line)> {
    let lines = comparison.lines().filter(|(_, line)| line.test.kind == kind);
    let counted = lines.map(|found| (ranked(comparison, found.1).len(), found)).filter(|(count, _)| *count > 0);
    // If several are the largest, `max_by_key` takes the last. So the order is reversed to get the first.
    counted.collect::<Vec<_>>().into_iter().rev().max_by_key(|(count, _)| *count).map(|(_, found)| found)
}

/// The results of a line, the fastest first. All are times of one clock: the host's, or the device's if there is none of the
/// host's.
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

/// Compares the fastest device with the second.
fn headline(ranked: &Ranked, name: &impl Fn(usize) -> String) -> String {
    let [best, rest @ ..] = ranked.as_slice() else { return String::new() };
    let rate = format!("{} tokens per second", units::digits(best.2));
    let Some(next) = rest.first() else { return format!("{}: {rate}", name(best.0)) };
    match against(best, next) {
        Some(ratio) if ratio.differs() && rest.len() == 1 => {
            format!("{} is {} times as fast as {}", name(best.0), digits(ratio.times), name(next.0))
        }
        Some(ratio) if ratio.differs() => {
            format!("{} is fastest: {rate}", name(best.0))
        }
        Some(ratio) if ratio.sure => {
            format!("No difference between {} and {}: {rate}", name(best.0), name(next.0))
        }
        _ => format!("{} reaches {rate}; too few samples to rank", name(best.0)),
    }
}

/// Says how far the second and the slowest device are behind the fastest. None with fewer than three devices.
fn behind(ranks: &Ranked, name: &impl Fn(usize) -> String) -> Option<String> {
    let [best, next, .., last] = ranks.as_slice() else { return None };
    let [next, last] = [next, last].map(|other| Some((against(best, other)?, name(other.0))));
    let ((next, second), (last, slowest)) = (next?, last?);
    let (near, far) = (digits(next.times), digits(last.times));
    next.differs()
        .then(|| format!("That is {near} times as fast as {second}, the next, and {far} times as fast as {slowest}."))
}

/// The ratio of two speeds.
fn against(best: &Place, other: &Place) -> Option<Ratio> {
    Ratio::of(&other.1.row.time.samples, &best.1.row.time.samples)
}

/// Joins up to [`LISTED`] texts, and says how many are left out.
fn list(texts: impl Iterator<Item = String>) -> String {
    let texts: Vec<String> = texts.collect();
    let more = texts.len().saturating_sub(LISTED);
    let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
    texts[..texts.len() - more].join(", ") + &rest
}

/// Says how much of its speed each device keeps behind a long text.
fn deeper(group: &Group, line: &Line, ranks: &Ranked, name: &impl Fn(usize) -> String) -> Option<String> {
    let same = |other: &&Line| {
        let (a, b) = (&other.test, &line.test);
        a.kind == b.kind && a.batch == b.batch && a.tokens == b.tokens && a.depth > b.depth
    };
    let deepest = group.tests.iter().filter(same).max_by_key(|other| other.test.depth)?;
    let told = ranks.iter().filter_map(|(at, cell, _)| {
        let deep = deepest.cells[*at].as_ref().filter(|deep| deep.good().is_some())?;
        let ratio = Ratio::of(&cell.row.time.samples, &deep.row.time.samples).filter(|ratio| ratio.sure)?;
        let keeps = if ratio.differs() { share(ratio.times) } else { "all".into() };
        Some(format!("{} {keeps}", name(*at)))
    });
    let told = list(told);
    let depth = units::thousands(f64::from(deepest.test.depth));
    (!told.is_empty()).then(|| format!("Behind a text of {depth} tokens, this share of the speed is left: {told}."))
}

/// The shortest name of a column that no other column of the line has.
fn brief(comparison: &Comparison, line: &Line, at: usize) -> String {
    let columns = &comparison.columns;
    let alike = line.filled().filter(|(other, _)| columns[*other].adapter == columns[at].adapter).count();
    let Column { adapter, label, .. } = &columns[at];
    match columns[at].browser() {
        _ if alike > 1 => label.replacen(", ", " (", 1) + ")",
        true => format!("{adapter} in {}", label::runtime(&columns[at])),
        false => adapter.clone(),
    }
}

fn failed(comparison: &Comparison) -> Vec<String> {
    let rows = comparison.lines().flat_map(|(_, line)| line.filled().map(move |(at, cell)| (line, at, cell)));
    // Tests that failed on a device for the same reason share a line.
    let mut found: Vec<(usize, &str, Vec<&str>)> = vec![];
    for (line, at, cell) in rows.filter(|(_, _, cell)| cell.failed) {
        match found.iter_mut().find(|(other, verdict, _)| *other == at && *verdict == cell.verdict) {
            Some((.., tests)) => tests.push(&line.test.name),
            None => found.push((at, &cell.verdict, vec![&line.test.name])),
        }
    }
    let text = |(at, verdict, tests): (usize, &str, Vec<&str>)| {
        format!("{}, {}: {verdict}", comparison.columns[at].label, tests.join(", "))
    };
    found.into_iter().map(text).collect()
}
