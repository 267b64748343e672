//! The sections of the page: each turns the comparison into what one chart or table shows, or into nothing.

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

/// A chart for each test: the first of each model, and the rest of them.
#[derive(Debug, Serialize)]
pub struct Charts<T> {
    main: Vec<T>,
    more: Vec<T>,
}

impl<T> Charts<T> {
    /// Those that `make` finds data for.
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
