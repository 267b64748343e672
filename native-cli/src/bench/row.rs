//! What a row contains besides the measurement.

use crate::args::Common;
use anyhow::Result;
use nemoflash_bench::report::{Device, Gate, Kind, Model, Row, SCHEMA, Software, Test, Time};
use nemoflash_bench::{WGPU, warnings};
use std::time::SystemTime;

/// What holds for all rows of one device.
#[derive(Clone, Debug)]
pub struct About {
    pub software: Software,
    pub device: Device,
    pub model: Model,
    pub gate: Gate,
    /// The tokens that the model gives after the fixed prompt on the device.
    pub said: Vec<u32>,
    /// Warnings that hold for all rows of the device.
    pub warnings: Vec<String>,
}

impl About {
    /// For a device on which nothing was measured yet.
    pub fn new(device: Device, model: Model) -> About {
        About { software: software(), device, model, gate: Gate::NotRun, said: vec![], warnings: vec![] }
    }

    /// A row with this result and today's date.
    pub fn row(&self, test: &Test, time: Time) -> Row {
        let About { software, device, model, gate, said, warnings: all } = self.clone();
        let warnings = [all, warnings(test.kind, &time.samples)].concat();
        Row {
            schema: SCHEMA.into(),
            date: today(),
            software,
            device,
            model,
            gate,
            said,
            test: test.clone(),
            time,
            operators: vec![],
            warnings,
            error: None,
        }
    }

    /// A row without a result.
    pub fn failed(&self, test: &Test, error: String) -> Row {
        let row = self.row(test, Time::wall(test, vec![], vec![]));
        Row { error: Some(error), ..row }
    }
}

/// Which tests a process, or the web demo, has reported so far.
#[derive(Debug)]
pub struct Told<'a> {
    tests: &'a [Test],
    /// How many tests of the list it has passed.
    seen: usize,
    /// What holds for all of its rows.
    pub about: About,
}

impl<'a> Told<'a> {
    /// No test was reported yet.
    pub fn new(tests: &'a [Test], about: About) -> Told<'a> {
        Told { tests, seen: 0, about }
    }

    /// Notes a row that was reported.
    pub fn hear(&mut self, row: &Row) {
        self.seen = self.tests.iter().position(|test| *test == row.test).map_or(self.seen, |at| at + 1);
        let Row { software, device, model, gate, said, .. } = row.clone();
        self.about = About { software, device, model, gate, said, warnings: vec![] };
    }

    /// Writes a row with an error for each test that is left, after the process or the web demo ended early. If no test is
    /// left, its own rows have said what went wrong.
    ///
    /// # Errors
    /// Those of `write`.
    pub fn failed(&self, why: &str, write: &mut dyn FnMut(Row) -> Result<()>) -> Result<()> {
        // The CPU has no kernels to compile.
        let runs = |test: &&Test| test.kind != Kind::Compile || self.about.device.backend != "cpu";
        let left: Vec<&Test> = self.tests[self.seen..].iter().filter(runs).collect();
        let Some((&first, rest)) = left.split_first() else { return Ok(()) };
        write(self.about.failed(first, why.to_owned()))?;
        // If not even one test was reported, all rows give the same reason.
        let behind = format!(
            "not run: the device failed before, in `{}`. Leave that test out, or measure this one in a run of its own",
            first.name
        );
        let why = if self.seen == 0 { why } else { &behind };
        rest.iter().try_for_each(|test| write(self.about.failed(test, why.to_owned())))
    }
}

/// A device of which only these names are known.
pub fn unknown(adapter: &str, backend: &str) -> Device {
    Device {
        adapter: adapter.into(),
        backend: backend.into(),
        kind: if backend == "cpu" { "cpu" } else { "other" }.into(),
        driver: String::new(),
        f16: false,
        subgroup: None,
        coopmat: false,
        denied: vec![],
    }
}

/// A model that was not loaded yet.
pub fn unread(name: &str, common: &Common) -> Model {
    Model {
        name: name.into(),
        synthetic: common.arch.is_some(),
        weights: quantised(common).unwrap_or_else(|| "as stored".into()),
        kv: format!("{:?}", common.kv()).to_lowercase(),
        bytes_per_token: 0,
        prefill_scan: None,
        dispatches_per_token: 0,
        weight_bytes: 0,
        arena_bytes: 0,
        scratch_bytes: 0,
    }
}

/// How random weights are kept.
pub fn weights_name(common: &Common) -> String {
    quantised(common).unwrap_or_else(|| "bf16".into())
}

fn quantised(common: &Common) -> Option<String> {
    common.load().quantise.map(|quant| format!("q{}", quant.bits))
}

/// The current time as RFC 3339, in UTC.
pub fn today() -> String {
    humantime::format_rfc3339_seconds(SystemTime::now()).to_string()
}

/// What rows say about this program.
pub fn software() -> Software {
    Software {
        version: env!("CARGO_PKG_VERSION").into(),
        commit: option_env!("NEMOFLASH_COMMIT").filter(|commit| !commit.is_empty()).map(str::to_owned),
        wgpu: WGPU.into(),
        runtime: "native".into(),
        host: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A row whose fields are all set.
    pub fn row() -> Row {
        let device = Device {
            adapter: "a card".into(),
            backend: "vulkan".into(),
            kind: "discrete".into(),
            driver: "1.2".into(),
            f16: false,
            subgroup: Some(32),
            coopmat: false,
            denied: vec!["f16".into(), "coopmat".into()],
        };
        let model = Model {
            name: "fables".into(),
            synthetic: false,
            weights: "bf16".into(),
            kv: "f16".into(),
            bytes_per_token: 1,
            prefill_scan: None,
            dispatches_per_token: 2,
            weight_bytes: 3,
            arena_bytes: 4,
            scratch_bytes: 5,
        };
        let about = About { gate: Gate::Passed, said: vec![3, 1], ..About::new(device, model) };
        let test = Test::new(Kind::Decode, 0, 4, 2, 1);
        let row = about.row(&test, Time::wall(&test, vec![2.0, 2.0], vec![0.5; 8]));
        Row { date: "2026-01-02T03:04:05Z".into(), ..row }
    }

    #[test]
    fn dates_are_those_of_the_format() {
        let date = About::new(row().device, row().model);
        let date = date.failed(&row().test, "why".into()).date;
        assert!(date.len() == row().date.len() && date.ends_with('Z') && date.as_bytes()[10] == b'T', "{date}");
    }
}
