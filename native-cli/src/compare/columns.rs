//! The columns of the comparison. A column is one device with one program and one clock, in one file.

use super::label;
use crate::html::chart::Key;
use nemoflash_bench::report::{Clock, Device, Model, Row, Software, Test};
use serde::Serialize;

/// A column of the comparison.
#[derive(Clone, Debug, Serialize)]
pub struct Column {
    /// `A` to `Z`, then `A2` and so on: a short name of the column.
    pub letter: String,
    /// The adapter's name, shortened, with everything that distinguishes this column from others of that name.
    pub label: String,
    /// The adapter's name, shortened.
    pub adapter: String,
    /// The name of its file.
    pub file: String,
    /// Number of the run: how many times these tests came earlier in the file.
    pub run: usize,
    /// The clock of all of its times.
    pub clock: Clock,
    /// The program.
    pub software: Software,
    /// The device.
    pub device: Device,
    /// When its first row was measured.
    pub date: String,
    /// Index of its file in the list of files.
    #[serde(skip)]
    pub source: usize,
}

/// Letter, names and colour of the column at this index.
pub fn key(columns: &[Column], at: usize) -> Key {
    let Column { letter, label, adapter, .. } = &columns[at];
    let more = label.strip_prefix(adapter.as_str()).unwrap_or_default().trim_start_matches(", ");
    Key::new(at, letter, adapter, more, label)
}

impl Column {
    /// Whether a page in a browser ran it.
    pub fn browser(&self) -> bool {
        self.software.runtime == "browser"
    }

    fn holds(&self, source: usize, row: &Row) -> bool {
        self.source == source
            && self.clock == row.time.clock
            && self.software == row.software
            && self.device == row.device
    }
}

/// Makes the columns, and finds the column of each row. A test that comes again in a file begins another run.
pub fn columns(rows: &[(usize, Row)], files: &[String]) -> (Vec<Column>, Vec<usize>) {
    let mut columns: Vec<Column> = vec![];
    let mut seen: Vec<Vec<(&Model, &Test)>> = vec![];
    let mut places = vec![];
    for (source, row) in rows {
        let what = (&row.model, &row.test);
        let mut run = 0;
        let fits = columns.iter().zip(&seen).position(|(column, seen)| {
            let same = column.holds(*source, row);
            run += usize::from(same);
            same && !seen.contains(&what)
        });
        let place = fits.unwrap_or_else(|| {
            columns.push(Column {
                letter: letter(columns.len()),
                label: String::new(),
                adapter: label::short(&row.device.adapter),
                file: files[*source].clone(),
                run,
                clock: row.time.clock,
                software: row.software.clone(),
                device: row.device.clone(),
                date: row.date.clone(),
                source: *source,
            });
            seen.push(vec![]);
            columns.len() - 1
        });
        seen[place].push(what);
        places.push(place);
    }
    label::name(&mut columns);
    (columns, places)
}

fn letter(index: usize) -> String {
    let letter = char::from(b'A' + (index % 26) as u8);
    match index / 26 {
        0 => letter.to_string(),
        round => format!("{letter}{}", round + 1),
    }
}
