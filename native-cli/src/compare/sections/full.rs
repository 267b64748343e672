//! The tables at the end of the report: the machines, and every row.

use crate::compare::agree::gate;
use crate::compare::columns::key;
use crate::compare::table::{Cell, Comparison, Line};
use crate::html::chart::Key;
use crate::html::units::{bytes, digits};
use nemoflash_bench::report::{Clock, Summary};
use serde::Serialize;

/// All that is known about a column.
#[derive(Debug, Serialize)]
pub struct Machine {
    key: Key,
    /// Names of facts, and their texts.
    facts: Vec<(&'static str, String)>,
}

/// Every column.
pub fn machines(comparison: &Comparison) -> Vec<Machine> {
    let columns = &comparison.columns;
    let facts = |at: usize| {
        let (column, device, software) = (&columns[at], &columns[at].device, &columns[at].software);
        let yes = |has: bool| if has { "yes" } else { "no" };
        let subgroup = device.subgroup.map_or("no".into(), |size| size.to_string());
        let mut features =
            format!("f16 {}, subgroups {subgroup}, cooperative matrices {}", yes(device.f16), yes(device.coopmat));
        if !device.denied.is_empty() {
            features.push_str(&format!("; denied: {}", device.denied.join(", ")));
        }
        let or = |text: &str| if text.is_empty() { "not told".to_owned() } else { text.to_owned() };
        vec![
            ("Adapter", device.adapter.clone()),
            ("Backend", format!("{}, {}", device.backend, device.kind)),
            ("Driver", or(&device.driver)),
            ("Features", features),
            ("Runtime", software.runtime.clone()),
            ("Host", or(&software.host)),
            ("nemoflash", format!("{}, commit {}", software.version, software.commit.as_deref().unwrap_or("not told"))),
            ("wgpu", or(&software.wgpu)),
            ("Measured", column.date.replace('T', " ")),
            ("File", column.file.clone()),
        ]
    };
    (0..columns.len()).map(|at| Machine { key: key(columns, at), facts: facts(at) }).collect()
}

/// A row of the table of all rows.
#[derive(Debug, Serialize)]
pub struct Full {
    key: Key,
    model: String,
    test: String,
    clock: &'static str,
    median: String,
    interval: String,
    mean: String,
    samples: usize,
    gate: &'static str,
    memory: String,
    date: String,
    /// Its error and its warnings.
    remarks: Vec<String>,
    failed: bool,
}

/// Every row, by test.
pub fn full(comparison: &Comparison) -> Vec<Full> {
    let lines = comparison.lines();
    let rows = lines.flat_map(|(group, line)| line.filled().map(move |(at, cell)| (group, line, at, cell)));
    rows.map(|(group, line, at, cell)| row(key(&comparison.columns, at), &group.title, line, cell)).collect()
}

fn row(key: Key, model: &str, line: &Line, cell: &Cell) -> Full {
    let row = &cell.row;
    let (median, interval) = cell.value.map(|value| line.counts().interval(&value)).unwrap_or_default();
    let mean = |value: Summary| {
        let times = line.counts().scale(&value);
        format!("{} ± {}", digits(value.mean * times), digits(value.sd * times))
    };
    let memory = [row.model.weight_bytes, row.model.arena_bytes, row.model.scratch_bytes];
    let memory: f64 = memory.iter().map(|&part| part as f64).sum();
    let error = row.error.iter().map(|error| format!("error: {error}"));
    Full {
        key,
        model: model.to_owned(),
        test: line.test.name.clone(),
        clock: match row.time.clock {
            Clock::Wall => "wall",
            Clock::Device => "device",
        },
        median,
        interval,
        mean: cell.value.map(mean).unwrap_or_default(),
        samples: cell.samples,
        gate: gate(row.gate),
        memory: bytes(memory),
        date: row.date.replace('T', " ").chars().take(16).collect(),
        remarks: error.chain(row.warnings.iter().cloned()).collect(),
        failed: cell.failed,
    }
}
