//! The benchmark: what `nemoflash bench` measures, by the page's clock.

use crate::session::Session;
use crate::{coded, fail, options};
use js_sys::Function;
use nemoflash::bench::report::{Device, Gate, Kind, Model, Report, Row, SCHEMA, Software, Test, Time};
use nemoflash::bench::{Settings, WGPU, golden, measure, memory_bytes_per_second, warnings};
use nemoflash::{Deny, Error};
use serde::Deserialize;
use std::ops::ControlFlow;
use wasm_bindgen::prelude::*;

/// Steps of the clock in a run, so that one of them is at most 1 % of it,
const RUN_STEPS: f64 = 100.0;
/// and in a single token.
const TOKEN_STEPS: f64 = 20.0;
/// Looks at the clock, at most, to see it move.
const LOOKS: usize = 1 << 22;

#[wasm_bindgen]
extern "C" {
    #[wasm_bindgen(js_namespace = performance, js_name = now)]
    fn milliseconds() -> f64;
}

fn seconds() -> f64 {
    milliseconds() / 1e3
}

/// Seconds by which the clock goes on: browsers make it coarse on purpose.
fn step() -> f64 {
    let (mut last, mut least, mut seen) = (seconds(), f64::INFINITY, 0);
    for _ in 0..LOOKS {
        let now = seconds();
        if now > last {
            (least, last, seen) = (least.min(now - last), now, seen + 1);
        }
        if seen == 8 {
            break;
        }
    }
    if seen == 0 { 1.0 } else { least }
}

#[derive(Deserialize)]
struct Options {
    prompt: u32,
    tokens: u32,
    depth: Vec<u32>,
    runs: u32,
    /// The model's name; `fables` in its own weights is asked for its golden tokens.
    model: String,
    load_seconds: f64,
    /// What the browser tells of the device, where wgpu does not.
    adapter: String,
    software: bool,
    denied: Vec<String>,
    runtime: String,
    host: String,
}

impl Options {
    fn tests(&self) -> Vec<Test> {
        let mut tests = vec![];
        if self.prompt > 0 {
            tests.push(Test::new(Kind::FirstToken, self.prompt, 1, 0, 1));
        }
        for &depth in &self.depth {
            if self.prompt > 0 {
                tests.push(Test::new(Kind::Prefill, self.prompt, 0, depth, 1));
            }
            if self.tokens > 0 {
                tests.push(Test::new(Kind::Decode, 0, self.tokens, depth, 1));
            }
        }
        tests
    }
}

#[wasm_bindgen]
impl Session {
    /// Measures, and returns a report (`benches/report.schema.json`); nothing if it was stopped. `on_event` is called with
    /// ("test", its number, name), ("run", run, runs) at each step and ("row", rows, JSON), and returns whether to stop.
    pub async fn bench(&mut self, options_json: String, on_event: Function) -> Result<Option<String>, JsValue> {
        let wanted: Options = options(&options_json)?;
        if wanted.runs == 0 {
            return Err(coded("parameter", "`runs`: 0 is too few. Give 1 at least"));
        }
        let tell = |kind: &str, number: u32, more: JsValue| match on_event.call3(
            &JsValue::NULL,
            &kind.into(),
            &number.into(),
            &more,
        ) {
            Ok(stop) if stop.is_falsy() => ControlFlow::Continue(()),
            _ => ControlFlow::Break(()),
        };
        let about = self.about(&wanted);
        let tests = wanted.tests();
        let Some(gate) = self.gate(&about, &mut || tell("run", 0, wanted.runs.into())).await? else { return Ok(None) };
        // Where memory is too short for two buffers more, the share is not known.
        let bandwidth = memory_bytes_per_second(self.engine.exec_mut(), seconds).await.unwrap_or(None);
        // A browser's timestamps are too coarse for single operators.
        let settings = Settings { runs: wanted.runs, warm_up: 1, profile: 0, bandwidth, clock: seconds };
        let load = Test::new(Kind::Load, 0, 0, 0, 1);
        let time = Time::wall(&load, vec![wanted.load_seconds], vec![]);
        let mut rows = vec![];
        let mut take = |row: Row| {
            let json = serde_json::to_string(&row).unwrap_or_default();
            rows.push(row);
            tell("row", rows.len() as u32, json.into())
        };
        let once = "it was loaded once, by this page: files may have come over the network or from storage".to_owned();
        if take(about.row(gate, load, time, Some(once))).is_break() {
            return Ok(None);
        }
        let step = step();
        for (done, test) in tests.into_iter().enumerate() {
            if tell("test", done as u32, test.name.as_str().into()).is_break() {
                return Ok(None);
            }
            let mut go = |run| tell("run", run, wanted.runs.into());
            let row = match measure(&mut self.engine, &test, &settings, &mut go).await {
                Ok(Some(measured)) => {
                    let (time, warning) = about.seen(&test, measured.time, step, bandwidth);
                    about.row(gate, test, time, warning)
                }
                Ok(None) => return Ok(None),
                // The package opens another one.
                Err(error @ Error::Device { .. }) => return Err(fail(error)),
                Err(error) => {
                    let time = Time::wall(&test, vec![], vec![]);
                    Row { error: Some(error.to_string()), ..about.row(gate, test, time, None) }
                }
            };
            if take(row).is_break() {
                return Ok(None);
            }
        }
        Ok(serde_json::to_string(&Report { schema: SCHEMA.into(), rows }).ok())
    }
}

/// What holds for all rows.
struct About {
    software: Software,
    device: Device,
    model: Model,
}

impl Session {
    fn about(&self, wanted: &Options) -> About {
        let denied = |name: &str| wanted.denied.iter().any(|denied| denied == name);
        let deny = Deny { f16: denied("f16"), subgroups: denied("subgroups"), coopmat: denied("coopmat") };
        let device = Device::new(self.engine.exec(), deny);
        let kind = if wanted.software { "cpu".into() } else { device.kind };
        About {
            software: Software {
                version: env!("CARGO_PKG_VERSION").into(),
                commit: option_env!("NEMOFLASH_COMMIT").filter(|commit| !commit.is_empty()).map(str::to_owned),
                wgpu: WGPU.into(),
                runtime: wanted.runtime.clone(),
                host: wanted.host.clone(),
            },
            device: Device { adapter: wanted.adapter.clone(), kind, ..device },
            model: Model::new(&self.engine, &wanted.model, false),
        }
    }

    /// The golden tokens, if the model has any.
    async fn gate(&mut self, about: &About, go: &mut dyn FnMut() -> ControlFlow<()>) -> Result<Option<Gate>, JsValue> {
        if about.model.name != "fables" || about.model.weights != "bf16" {
            return Ok(Some(Gate::NotRun));
        }
        golden(&mut self.engine, go).await.map_err(fail)
    }
}

impl About {
    fn row(&self, gate: Gate, test: Test, time: Time, warning: Option<String>) -> Row {
        let wrong = "the golden tokens are wrong on this device, so its speed says nothing. Run the self-check";
        let wrong = (gate == Gate::Failed).then(|| wrong.to_owned());
        Row {
            schema: SCHEMA.into(),
            date: js_sys::Date::new_0().to_iso_string().into(),
            software: self.software.clone(),
            device: self.device.clone(),
            model: self.model.clone(),
            gate,
            warnings: wrong.into_iter().chain(warning).chain(warnings(&time.samples)).collect(),
            test,
            time,
            operators: vec![],
            error: None,
        }
    }

    /// What is left of a measurement by a clock that goes on by `step` seconds, and what to warn of: single tokens are not
    /// told where they are too short for it, and bandwidth then follows from all of them.
    fn seen(&self, test: &Test, time: Time, step: f64, bandwidth: Option<f64>) -> (Time, Option<String>) {
        let median = time.seconds.map_or(0.0, |seconds| seconds.median);
        let short = median < RUN_STEPS * step;
        let warning = short.then(|| {
            let [took, step] = [median, step].map(|seconds| seconds * 1e3);
            format!("a run takes {took:.1} ms, and this browser's clock goes by {step:.3} ms. Measure more tokens")
        });
        if test.kind != Kind::Decode || median >= TOKEN_STEPS * step * f64::from(test.tokens) {
            return (time, warning);
        }
        let rate = (median > 0.0).then(|| self.model.bytes_per_token as f64 * f64::from(test.tokens) / median);
        let share = rate.zip(bandwidth).map(|(rate, most)| rate / most);
        let time =
            Time { token_samples: vec![], token_seconds: None, bytes_per_second: rate, bandwidth_share: share, ..time };
        (time, warning)
    }
}
