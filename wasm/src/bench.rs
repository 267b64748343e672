//! The benchmark of `nemoflash bench`, timed by the page's clock.

use crate::device::Device as Opened;
use crate::session::Session;
use crate::{coded, fail, options};
use js_sys::Function;
use nemoflash::{Deny, Error, Exec};
use nemoflash_bench::report::{Device, Gate, Kind, Model, Report, Row, SCHEMA, Software, Test, Time};
use nemoflash_bench::{
    Lists, Measured, Settings, WGPU, compile, gate, measure, memory_bytes_per_second, said, warnings,
};
use serde::Deserialize;
use std::ops::ControlFlow;
use wasm_bindgen::prelude::*;

/// Least length of a run in ticks of the clock. One tick is then at most 1 % of the run. Shorter runs get a warning.
const RUN_STEPS: f64 = 100.0;
/// Least time of a token in ticks of the clock. If tokens are faster, only the time of all tokens together is reported.
const TOKEN_STEPS: f64 = 20.0;
/// Least number of steps over which times of operators are averaged.
const PROFILE: u32 = 8;
/// Seconds that further steps may take until the averages are steady, because a browser's timestamps are coarse.
const STEADY: f64 = 3.0;
/// Most readings of the clock when its tick is measured.
const LOOKS: usize = 1 << 22;

#[wasm_bindgen]
extern "C" {
    #[wasm_bindgen(js_namespace = performance, js_name = now)]
    fn milliseconds() -> f64;
}

fn seconds() -> f64 {
    milliseconds() / 1e3
}

/// Length of the clock's tick in seconds. Browsers make their clocks coarse on purpose.
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
    #[serde(flatten)]
    lists: Lists,
    runs: u32,
    warm_up: u32,
    /// Whether to make the golden check, and to ask the model for tokens after the fixed prompt.
    gate: bool,
    /// Seconds of each call of [`Session::compile`].
    compile_seconds: Vec<f64>,
    /// The model's name. The golden check is only possible for `fables` with its weights as stored.
    model: String,
    load_seconds: f64,
    /// The device's name as the browser tells it. wgpu does not know it there.
    adapter: String,
    software: bool,
    denied: Vec<String>,
    runtime: String,
    host: String,
}

#[wasm_bindgen]
impl Session {
    /// Compiles this model's kernels on a fresh device, and returns the seconds that it takes. `None` on the CPU.
    pub async fn compile(&self, device: Opened) -> Result<Option<f64>, JsValue> {
        match device.exec {
            Exec::Gpu(mut gpu) => compile(&mut gpu, &self.engine, seconds).await.map(Some).map_err(fail),
            Exec::Cpu(_) | Exec::Dry(_) => Ok(None),
        }
    }

    /// Measures, and returns a report (`benches/report.schema.json`). `None` if it was stopped. `on_event` is called with
    /// ("test", its number, name) before each test, ("run", run, runs) at each step, and ("row", number of rows, JSON) after
    /// each test. It returns whether to stop.
    pub async fn bench(&mut self, options_json: String, on_event: Function) -> Result<Option<String>, JsValue> {
        let wanted: Options = options(&options_json)?;
        if wanted.runs == 0 {
            return Err(coded("parameter", "`runs`: 0 is too few. Give at least 1"));
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
        let mut about = self.about(&wanted);
        if wanted.gate {
            let mut go = || tell("run", 0, wanted.runs.into());
            let Some(said) = said(&mut self.engine, &mut go).await.map_err(fail)? else { return Ok(None) };
            // Only this model has golden tokens.
            if about.model.name == "fables" && about.model.weights == "bf16" {
                about.gate = gate(&said);
            }
            about.said = said;
        }
        // Without memory for the two buffers of that measurement, rows have no share of the bandwidth.
        let bandwidth = memory_bytes_per_second(self.engine.exec_mut(), seconds).await.unwrap_or(None);
        let Options { runs, warm_up, .. } = wanted;
        let settings = Settings { runs, warm_up, profile: PROFILE, steady: Some(STEADY), bandwidth, clock: seconds };
        let mut rows = vec![];
        let mut take = |row: Row| {
            let json = serde_json::to_string(&row).unwrap_or_default();
            rows.push(row);
            tell("row", rows.len() as u32, json.into())
        };
        let step = step();
        for (done, test) in wanted.lists.tests().into_iter().enumerate() {
            if tell("test", done as u32, test.name.as_str().into()).is_break() {
                return Ok(None);
            }
            let mut go = |run| tell("run", run, runs.into());
            let row = match test.kind {
                Kind::Load => {
                    let once = "it was loaded once, by this page: files may have come over the network or from storage";
                    let time = Time::wall(&test, vec![wanted.load_seconds], vec![]);
                    about.row(test, time, vec![once.into()])
                }
                // The CPU has no kernels to compile.
                Kind::Compile if wanted.compile_seconds.is_empty() => continue,
                Kind::Compile => {
                    let time = Time::wall(&test, wanted.compile_seconds.clone(), vec![]);
                    about.row(test, time, vec![])
                }
                _ => match measure(&mut self.engine, &test, &settings, &mut go).await {
                    Ok(Some(Measured { time, operators })) => {
                        let untold = operators.is_empty().then(|| self.untold(&test)).flatten();
                        let (time, warning) = about.seen(&test, time, step, bandwidth);
                        let warnings = warning.into_iter().chain(untold).collect();
                        Row { operators, ..about.row(test, time, warnings) }
                    }
                    Ok(None) => return Ok(None),
                    // The device is lost. The package opens another one.
                    Err(error @ Error::Device { .. }) => return Err(fail(error)),
                    Err(error) => {
                        let time = Time::wall(&test, vec![], vec![]);
                        Row { error: Some(error.to_string()), ..about.row(test, time, vec![]) }
                    }
                },
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
    gate: Gate,
    said: Vec<u32>,
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
            gate: Gate::NotRun,
            said: vec![],
        }
    }

    /// Why a test has no times of operators. None if the test has none on any device.
    fn untold(&self, test: &Test) -> Option<String> {
        let Exec::Gpu(gpu) = self.engine.exec() else { return None };
        let told = matches!(test.kind, Kind::FirstToken | Kind::Prefill | Kind::Decode) && test.batch == 1;
        let why = match gpu.caps().timestamps {
            true => {
                "this browser's timestamps are too coarse, or the device too busy, for a steady average. Close other \
                 programs and measure again, or measure natively"
            }
            false => "this browser gives no timestamps. Try another one, or measure natively",
        };
        told.then(|| format!("the times of single operators are not told: {why}"))
    }
}

impl About {
    fn row(&self, test: Test, time: Time, more: Vec<String>) -> Row {
        let wrong = "the golden tokens are wrong on this device, so its speed says nothing. Run the self-check";
        let wrong = (self.gate == Gate::Failed).then(|| wrong.to_owned());
        Row {
            schema: SCHEMA.into(),
            date: js_sys::Date::new_0().to_iso_string().into(),
            software: self.software.clone(),
            device: self.device.clone(),
            model: self.model.clone(),
            gate: self.gate,
            said: self.said.clone(),
            warnings: wrong.into_iter().chain(more).chain(warnings(test.kind, &time.samples)).collect(),
            test,
            time,
            operators: vec![],
            error: None,
        }
    }

    /// Removes times from a measurement that a clock with ticks of `step` seconds cannot measure, and returns a warning if the
    /// whole run is short. Times of single tokens are removed if a token takes too few ticks. The bandwidth is then computed
    /// from the time of all tokens together.
    fn seen(&self, test: &Test, time: Time, step: f64, bandwidth: Option<f64>) -> (Time, Option<String>) {
        let median = time.seconds.map_or(0.0, |seconds| seconds.median);
        let short = median < RUN_STEPS * step;
        let warning = short.then(|| {
            let [took, step] = [median, step].map(|seconds| seconds * 1e3);
            format!("a run takes {took:.1} ms, and this browser's clock has ticks of {step:.3} ms. Measure more tokens")
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
