//! What stands around a measurement.

use crate::args::Common;
use nemoflash::bench::report::{Device, Gate, Model, Row, SCHEMA, Software, Test, Time};
use nemoflash::bench::{WGPU, warnings};
use std::time::SystemTime;

/// What holds for all rows of one device.
#[derive(Clone, Debug)]
pub struct About {
    pub device: Device,
    pub model: Model,
    pub gate: Gate,
    /// What makes all of its numbers less sure.
    pub warnings: Vec<String>,
}

impl About {
    /// A row that is measured now.
    pub fn row(&self, test: &Test, time: Time) -> Row {
        let About { device, model, gate, warnings: all } = self.clone();
        let warnings = [all, warnings(&time.samples)].concat();
        Row {
            schema: SCHEMA.into(),
            date: today(),
            software: software(),
            device,
            model,
            gate,
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

/// A model that was not loaded anywhere yet.
pub fn unread(name: &str, common: &Common) -> Model {
    Model {
        name: name.into(),
        synthetic: common.arch.is_some(),
        weights: quantised(common).unwrap_or_else(|| "as stored".into()),
        kv: format!("{:?}", common.kv()).to_lowercase(),
        bytes_per_token: 0,
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

/// Now, as RFC 3339.
pub fn today() -> String {
    humantime::format_rfc3339_seconds(SystemTime::now()).to_string()
}

/// This program.
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
    use nemoflash::bench::report::Kind;

    /// A row that has everything.
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
            dispatches_per_token: 2,
            weight_bytes: 3,
            arena_bytes: 4,
            scratch_bytes: 5,
        };
        let about = About { device, model, gate: Gate::Passed, warnings: vec![] };
        let test = Test::new(Kind::Decode, 0, 4, 2, 1);
        let row = about.row(&test, Time::wall(&test, vec![2.0, 2.0], vec![0.5; 8]));
        Row { date: "2026-01-02T03:04:05Z".into(), ..row }
    }

    #[test]
    fn dates_are_those_of_the_format() {
        let date = About { device: row().device, model: row().model, gate: Gate::NotRun, warnings: vec![] };
        let date = date.failed(&row().test, "why".into()).date;
        assert!(date.len() == row().date.len() && date.ends_with('Z') && date.as_bytes()[10] == b'T', "{date}");
    }
}
