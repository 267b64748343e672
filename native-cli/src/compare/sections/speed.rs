//! Bar charts of the speed of each device, for every test.

use super::Titled;
use crate::compare::columns::Column;
use crate::compare::columns::key;
use crate::compare::ratio::Ratio;
use crate::compare::table::{Cell, Comparison, Line};
use crate::html::chart::{Bar, Bars};
use crate::html::units::{Unit, seconds_named};
use nemoflash_bench::report::{Clock, Kind};

/// A chart for each test and clock.
pub fn speed(comparison: &Comparison) -> Vec<Titled> {
    let columns = &comparison.columns;
    let of_line = |line: &Line| {
        let clocks = [Clock::Wall, Clock::Device].into_iter();
        clocks.filter_map(|clock| bars(line, columns, clock)).collect::<Vec<_>>()
    };
    let groups = comparison.groups.iter();
    groups
        .map(|group| Titled { title: group.title.clone(), charts: group.tests.iter().flat_map(of_line).collect() })
        .collect()
}

/// Describes a test in words.
pub fn describe(line: &Line) -> String {
    let test = &line.test;
    let what = match test.kind {
        Kind::Load => "from the first file to a model that is ready",
        Kind::Compile => "compiling the kernels",
        Kind::FirstToken => "from the prompt to the first token",
        Kind::Prefill => "reading a prompt",
        Kind::Decode => "writing tokens",
        Kind::EndToEnd => "reading a prompt and writing tokens",
    };
    match test.batch {
        0 | 1 => what.into(),
        batch => format!("{what}, {batch} sequences at a time"),
    }
}

fn bars(line: &Line, columns: &[Column], clock: Clock) -> Option<Bars> {
    let cells: Vec<(usize, &Cell)> = line.filled().filter(|(at, _)| columns[*at].clock == clock).collect();
    let most = cells.iter().filter_map(|(_, cell)| cell.value).map(|v| v.high.max(v.median)).fold(0.0, f64::max);
    let way = match line.counts() {
        Unit::TokensPerSecond => "tokens per second, more is better".to_owned(),
        Unit::Seconds => format!("{}, less is better", seconds_named(most)),
    };
    let clocked = match clock {
        Clock::Wall => "",
        Clock::Device => ", by the device's clock",
    };
    let rows: Vec<Bar> = cells.into_iter().map(|(at, cell)| bar(line, columns, at, cell, most)).collect();
    let caption = format!("{}; {way}{clocked}", describe(line));
    (!rows.is_empty()).then(|| Bars { title: line.test.name.clone(), caption, rows })
}

fn bar(line: &Line, columns: &[Column], at: usize, cell: &Cell, most: f64) -> Bar {
    let (value, interval) = cell.value.map(|value| line.counts().interval(&value)).unwrap_or_default();
    let tone = if cell.failed { "bad" } else { tone(cell.ratio) };
    Bar { value, interval, note: cell.verdict.clone(), tone, ..Bar::of(key(columns, at), cell.value, most) }
}

/// The tone of a ratio, which chooses its colour.
pub fn tone(ratio: Option<Ratio>) -> &'static str {
    match ratio {
        Some(ratio) if ratio.differs() && ratio.low > 1.0 => "better",
        _ => "",
    }
}
