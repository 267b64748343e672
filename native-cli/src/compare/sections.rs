//! The sections of the HTML report. Each turns the comparison into the data of a chart or a table, or into nothing if it has no
//! data.

pub mod browser;
pub mod full;
pub mod latency;
pub mod memory;
pub mod parts;
pub mod speed;
pub mod tokens;

use super::table::{Comparison, Group, Line};
use crate::html::chart::Bars;
use serde::Serialize;

/// Bars under one heading.
#[derive(Debug, Serialize)]
pub struct Titled {
    title: String,
    charts: Vec<Bars>,
}

/// A chart for each test: the first of each model, which are shown, and the others, which can be opened.
#[derive(Debug, Serialize)]
pub struct Charts<T> {
    main: Vec<T>,
    more: Vec<T>,
}

impl<T> Charts<T> {
    /// The charts of all tests for which `make` finds data.
    fn of(comparison: &Comparison, make: impl Fn(&Group, &Line) -> Option<T>) -> Charts<T> {
        let mut charts = Charts { main: vec![], more: vec![] };
        for group in &comparison.groups {
            let mut made = group.tests.iter().filter_map(|line| make(group, line));
            charts.main.extend(made.next());
            charts.more.extend(made);
        }
        charts
    }
}
