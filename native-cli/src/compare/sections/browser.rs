//! Compares the same adapter natively and in a browser.

use super::Titled;
use super::speed::tone;
use crate::compare::columns::Column;
use crate::compare::columns::key;
use crate::compare::ratio::Ratio;
use crate::compare::table::{Cell, Comparison, Group, Line};
use crate::html::chart::{Bar, Bars};
use crate::html::units::Unit;
use nemoflash_bench::report::Summary;

/// Indices of two columns of the same adapter: native, then in a browser.
pub type Pair = (usize, usize);

/// Words in names of adapters that say nothing about the model of the adapter.
const VENDORS: [&str; 10] =
    ["nvidia", "amd", "intel", "apple", "google", "qualcomm", "graphics", "geforce", "radeon", "device"];

/// All pairs of a native column and a browser's column of the same adapter.
pub fn pairs(columns: &[Column]) -> Vec<Pair> {
    let browsers = columns.iter().enumerate().filter(|(_, column)| column.browser());
    browsers
        .flat_map(|(there, browser)| partners(columns, browser).into_iter().map(move |here| (here, there)))
        .collect()
}

/// The native columns of a browser's adapter. A browser tells little about the adapter, often only the vendor. Then the partner
/// is the only adapter of that vendor in the same file, if there is only one.
fn partners(columns: &[Column], browser: &Column) -> Vec<usize> {
    let wanted = |native: &Column| {
        native.software.runtime == "native"
            && native.clock == browser.clock
            && native.device.denied == browser.device.denied
            && (native.device.backend == "cpu") == (browser.device.backend == "cpu")
    };
    let common = |native: &Column, vendors: bool| {
        let (here, there) = (words(native), words(browser));
        here.iter().any(|word| {
            there.contains(word) && (word.len() > 2 || vendors) && VENDORS.contains(&word.as_str()) == vendors
        })
    };
    let find = |test: &dyn Fn(&Column) -> bool| {
        let found = columns.iter().enumerate().filter(|(_, native)| wanted(native) && test(native));
        found.map(|(at, _)| at).collect::<Vec<_>>()
    };
    let named = find(&|native| common(native, false));
    let here = |at: &usize| columns[*at].source == browser.source;
    if named.iter().any(here) {
        // If several files match, only columns of the browser's own file are taken.
        return named.into_iter().filter(here).collect();
    }
    if !named.is_empty() {
        return named;
    }
    let vendor = find(&|native| native.source == browser.source && common(native, true));
    let one = vendor.iter().all(|at| columns[*at].device.adapter == columns[vendor[0]].device.adapter);
    if one { vendor } else { vec![] }
}

fn words(column: &Column) -> Vec<String> {
    let words = column.adapter.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
    words.map(str::to_lowercase).collect()
}

/// Charts of each pair, one for each test that is measured in tokens per second.
pub fn browser(comparison: &Comparison) -> Vec<Titled> {
    let columns = &comparison.columns;
    let titled = pairs(columns).into_iter().map(|pair| Titled {
        title: format!("{} against {}", columns[pair.1].label, columns[pair.0].label),
        charts: comparison.lines().filter_map(|(group, line)| chart(comparison, group, line, pair)).collect(),
    });
    titled.filter(|pair| !pair.charts.is_empty()).collect()
}

/// The speed of the browser relative to the native speed.
pub fn ratio(line: &Line, (here, there): Pair) -> Option<Ratio> {
    let good = |at: usize| line.cells[at].as_ref().filter(|cell| cell.good().is_some());
    Ratio::of(&good(here)?.row.time.samples, &good(there)?.row.time.samples)
}

fn chart(comparison: &Comparison, group: &Group, line: &Line, pair: Pair) -> Option<Bars> {
    let ratio = ratio(line, pair).filter(|_| line.counts() == Unit::TokensPerSecond)?;
    let good = |at: usize| line.cells[at].as_ref().and_then(Cell::good);
    let (here, there) = (good(pair.0)?, good(pair.1)?);
    let most = here.high.max(there.high);
    let bar = |at: usize, value: Summary, note: String, tone| {
        let (text, interval) = line.counts().interval(&value);
        Bar { value: text, interval, note, tone, ..Bar::of(key(&comparison.columns, at), Some(value), most) }
    };
    Some(Bars {
        title: line.test.name.clone(),
        caption: format!("{}; tokens per second, more is better", group.title),
        rows: vec![bar(pair.0, here, "native".into(), ""), bar(pair.1, there, ratio.words(), tone(Some(ratio)))],
    })
}
