//! Writes rows one by one, so that a run that ends early has written what it measured. The file is written when all rows are
//! known. Until then, `FILE.part` holds the rows as JSON lines, whatever the format of the file is.

use super::options::Output as Format;
use crate::outfile::Growing;
use crate::terminal;
use anyhow::Result;
use nemoflash_bench::report::{Gate, Report, Row, SCHEMA};
use serde_json::Value;
use std::path::Path;

/// Where rows go: stdout, and a file if one is wanted.
#[derive(Debug)]
pub struct Output {
    stdout: Writer,
    file: Option<(Growing, Writer)>,
}

impl Output {
    /// Prepares the output. Makes `FILE.part` if a file is wanted.
    ///
    /// # Errors
    /// As [`Growing::new`].
    pub fn new(format: Format, file: Option<&Path>) -> Result<Output> {
        let Some(path) = file else { return Ok(Output { stdout: Writer::new(format), file: None }) };
        Ok(Output { stdout: Writer::new(Format::Md), file: Some((Growing::new(path)?, Writer::new(format))) })
    }

    /// Writes a row.
    ///
    /// # Errors
    /// If writing fails.
    pub fn row(&mut self, row: Row) -> Result<()> {
        if let Some((growing, writer)) = &mut self.file {
            growing.add(&json_line(&row)?)?;
            writer.rows.push(row.clone());
        }
        if self.stdout.format == Format::Md {
            // The table has no room for warnings. A warning that several rows have is printed once.
            let said = |warning: &str| self.stdout.rows.iter().flat_map(|row| &row.warnings).any(|old| old == warning);
            for warning in row.warnings.iter().filter(|warning| !said(warning)) {
                terminal::note(&format!("note: {}: {warning}", row.test.name));
            }
        }
        terminal::print(&self.stdout.row(row)?)
    }

    /// Writes what follows the last row, and returns all rows.
    ///
    /// # Errors
    /// If writing fails.
    pub fn end(self) -> Result<Vec<Row>> {
        if let Some((growing, writer)) = self.file {
            growing.finish(&writer.whole()?)?;
        }
        terminal::print(&self.stdout.end()?)?;
        Ok(self.stdout.rows)
    }
}

fn json_line(row: &Row) -> Result<String> {
    Ok(format!("{}\n", serde_json::to_string(row)?))
}

/// Rows of one format.
#[derive(Debug)]
struct Writer {
    format: Format,
    rows: Vec<Row>,
    /// Widths of the table's columns. None before the first row.
    widths: Option<[usize; COLUMNS.len()]>,
}

impl Writer {
    fn new(format: Format) -> Writer {
        Writer { format, rows: vec![], widths: None }
    }

    /// The text that a row adds.
    fn row(&mut self, row: Row) -> Result<String> {
        let text = match self.format {
            Format::Md => self.table(&row),
            Format::Csv if self.rows.is_empty() => format!("{}{}", csv(&head())?, csv(&cells(&row)?)?),
            Format::Csv => csv(&cells(&row)?)?,
            Format::Jsonl => json_line(&row)?,
            Format::Json => String::new(),
        };
        self.rows.push(row);
        Ok(text)
    }

    /// All rows in one text.
    fn whole(self) -> Result<String> {
        let mut again = Writer::new(self.format);
        let rows: Result<String> = self.rows.into_iter().map(|row| again.row(row)).collect();
        // The last line of a table names program and machine. It is printed on stdout only.
        Ok(rows? + &if self.format == Format::Json { again.end()? } else { String::new() })
    }

    /// The text that follows the last row.
    fn end(&self) -> Result<String> {
        Ok(match (self.format, self.rows.last()) {
            (Format::Json, _) => {
                let report = Report { schema: SCHEMA.into(), rows: self.rows.clone() };
                format!("{}\n", serde_json::to_string_pretty(&report)?)
            }
            (Format::Md, Some(Row { software, .. })) => {
                let commit = software.commit.as_deref().unwrap_or("commit unknown");
                let [version, wgpu, host] = [&software.version, &software.wgpu, &software.host];
                format!("\nnemoflash {version} ({commit}), wgpu {wgpu}, {host}\n")
            }
            _ => String::new(),
        })
    }

    /// A line of the table, with its head if it is the first.
    fn table(&mut self, row: &Row) -> String {
        let cells = line(row);
        let first = self.widths.is_none();
        let width = |i: usize| COLUMNS[i].1.max(cells[i].chars().count());
        let widths = *self.widths.get_or_insert_with(|| std::array::from_fn(width));
        let draw = |cells: [&str; COLUMNS.len()]| {
            let padded = cells.iter().zip(widths).zip(COLUMNS).map(|((cell, width), (_, _, right))| match right {
                true => format!(" {cell:>width$} "),
                false => format!(" {cell:<width$} "),
            });
            format!("|{}|\n", padded.collect::<Vec<_>>().join("|"))
        };
        let mut text = String::new();
        if first {
            text += &draw(COLUMNS.map(|(name, ..)| name));
            let rule = widths.iter().zip(COLUMNS).map(|(width, (_, _, right))| match right {
                true => format!(" {}: ", "-".repeat(width - 1)),
                false => format!(" {} ", "-".repeat(*width)),
            });
            text += &format!("|{}|\n", rule.collect::<Vec<_>>().join("|"));
        }
        text + &draw(cells.each_ref().map(String::as_str))
    }
}

/// Columns of the table: name, least width, and whether cells are aligned to the right.
const COLUMNS: [(&str, usize, bool); 9] = [
    ("model", 6, false),
    ("weights", 7, false),
    ("device", 24, false),
    ("backend", 7, false),
    ("deny", 9, false),
    ("gate", 6, false),
    ("test", 14, false),
    ("time", 10, true),
    ("t/s", 18, true),
];

/// A row of the table. Its texts come from drivers and files, so characters that would end a cell are escaped.
fn line(row: &Row) -> [String; COLUMNS.len()] {
    let deny = if row.device.denied.is_empty() { "-".into() } else { row.device.denied.join(",") };
    let gate = match row.gate {
        Gate::Passed => "passed",
        Gate::Failed => "FAILED",
        Gate::NotRun => "-",
    };
    let time = row.time.seconds.map_or("-".into(), |seconds| duration(seconds.median));
    let rate = match (&row.error, row.time.tokens_per_second) {
        (Some(error), _) => format!("error: {error}"),
        (None, Some(rate)) => format!("{:.2} ± {:.2}", rate.mean, rate.sd),
        (None, None) => "-".into(),
    };
    let [name, weights, mut adapter] = [&row.model.name, &row.model.weights, &row.device.adapter].map(Clone::clone);
    if row.software.runtime != "native" {
        adapter += &format!(" ({})", row.software.runtime);
    }
    let backend = row.device.backend.clone();
    let all = [name, weights, adapter, backend, deny, gate.into(), row.test.name.clone(), time, rate];
    all.map(|cell| cell.replace(['\n', '\r'], " ").replace('|', "\\|"))
}

/// A time with three decimals in the unit that fits it.
fn duration(seconds: f64) -> String {
    match seconds {
        1.0.. => format!("{seconds:.3} s"),
        1e-3.. => format!("{:.3} ms", seconds * 1e3),
        _ => format!("{:.3} µs", seconds * 1e6),
    }
}

/// Columns of CSV, as JSON pointers into a row.
#[rustfmt::skip]
const POINTERS: [&str; 52] = [
    "/schema", "/date", "/software/version", "/software/commit", "/software/wgpu", "/software/runtime",
    "/software/host", "/device/adapter", "/device/backend", "/device/kind", "/device/driver", "/device/f16",
    "/device/subgroup", "/device/coopmat", "/device/denied", "/model/name", "/model/synthetic", "/model/weights",
    "/model/kv", "/model/bytes_per_token", "/model/dispatches_per_token", "/model/weight_bytes", "/model/arena_bytes",
    "/model/scratch_bytes", "/gate", "/test/name", "/test/kind", "/test/prompt", "/test/tokens", "/test/depth",
    "/test/batch", "/time/clock", "/time/seconds/mean", "/time/seconds/sd", "/time/seconds/median",
    "/time/seconds/low", "/time/seconds/high", "/time/tokens_per_second/mean", "/time/tokens_per_second/sd",
    "/time/tokens_per_second/median", "/time/tokens_per_second/low", "/time/tokens_per_second/high",
    "/time/token_seconds/p50", "/time/token_seconds/p90", "/time/token_seconds/p99", "/time/token_seconds/max",
    "/time/bytes_per_second", "/time/bandwidth_share", "/time/busy_share", "/time/samples", "/warnings", "/error",
];

/// The names of the columns: `time.seconds.median`.
fn head() -> Vec<String> {
    POINTERS.iter().map(|pointer| pointer[1..].replace('/', ".")).collect()
}

fn cells(row: &Row) -> Result<Vec<String>> {
    fn cell(value: &Value) -> String {
        match value {
            Value::Null => String::new(),
            Value::String(text) => text.clone(),
            Value::Array(values) => values.iter().map(cell).collect::<Vec<_>>().join(" "),
            other => other.to_string(),
        }
    }
    let row = serde_json::to_value(row)?;
    Ok(POINTERS.iter().map(|pointer| row.pointer(pointer).map_or(String::new(), cell)).collect())
}

fn csv(cells: &[String]) -> Result<String> {
    let mut writer = csv::Writer::from_writer(vec![]);
    writer.write_record(cells)?;
    Ok(String::from_utf8(writer.into_inner()?)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::row::tests::row;

    fn write(format: Format, rows: &[Row]) -> Vec<String> {
        let mut writer = Writer::new(format);
        let mut text: Vec<_> = rows.iter().map(|row| writer.row(row.clone()).unwrap()).collect();
        text.push(writer.end().unwrap());
        text
    }

    #[test]
    fn the_table_lines_up() {
        let mut failed = row();
        failed.error = Some("it | broke\nhere".into());
        let text = write(Format::Md, &[row(), failed]);
        let lines: Vec<&str> = text[0].lines().chain(text[1].lines()).collect();
        assert_eq!(lines.len(), 4, "{text:?}");
        assert!(lines.iter().take(3).all(|line| line.chars().count() == lines[0].chars().count()), "{text:?}");
        assert!(lines[0].starts_with("| model ") && lines[1].ends_with("-: |"), "{text:?}");
        for word in ["fables", "bf16", "passed", "tg4 @ d2", "2.000 s", "2.00 ± 0.00"] {
            assert!(lines[2].contains(word), "{word}: {}", lines[2]);
        }
        assert!(lines[3].contains("error: it \\| broke here |"), "{}", lines[3]);
        assert!(text[2].starts_with("\nnemoflash "));
        let mut page = row();
        page.software.runtime = "browser".into();
        assert_eq!([row(), page].map(|row| line(&row)[2].clone()), ["a card", "a card (browser)"]);
    }

    #[test]
    fn csv_has_all_columns() {
        let mut row = row();
        row.warnings = vec!["a, \"b\"".into(), "c\nd".into()];
        let value = serde_json::to_value(&row).unwrap();
        for pointer in POINTERS {
            assert!(value.pointer(pointer).is_some(), "{pointer}");
        }
        let text = write(Format::Csv, &[row.clone(), row]).concat();
        let mut reader = csv::Reader::from_reader(text.as_bytes());
        let at = |name: &str| head().iter().position(|other| other == name).unwrap();
        assert_eq!(reader.headers().unwrap().iter().collect::<Vec<_>>(), head());
        let records: Vec<_> = reader.records().map(Result::unwrap).collect();
        assert_eq!(records.len(), 2);
        let cell = |name| &records[1][at(name)];
        assert_eq!(
            (cell("test.name"), cell("time.seconds.median"), cell("time.samples")),
            ("tg4 @ d2", "2.0", "2.0 2.0")
        );
        assert_eq!((cell("warnings"), cell("error"), cell("device.denied")), ("a, \"b\" c\nd", "", "f16 coopmat"));
    }

    #[test]
    fn json_is_a_report_and_json_lines_are_rows() {
        let text = write(Format::Json, &[row(), row()]).concat();
        let report: Report = serde_json::from_str(&text).unwrap();
        assert_eq!((report.schema.as_str(), report.rows.len(), &report.rows[1]), (SCHEMA, 2, &row()));
        assert!(serde_json::from_str::<Report>(&write(Format::Json, &[]).concat()).unwrap().rows.is_empty());
        for line in write(Format::Jsonl, &[row(), row()]).concat().lines() {
            assert_eq!(serde_json::from_str::<Row>(line).unwrap(), row());
        }
    }

    #[test]
    fn durations_have_a_fitting_unit() {
        assert_eq!([2.5, 0.0025, 25e-7].map(duration), ["2.500 s", "2.500 ms", "2.500 µs"]);
    }
}
