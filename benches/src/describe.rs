//! Fills the fields of a report that describe tests, devices and models.

use crate::report::{Clock, Device, Kind, Model, Percentiles, Summary, Test, Time};
use nemoflash::{Deny, Engine, Exec, Format, Quant};

/// The version of wgpu in this build.
pub const WGPU: &str = "30.0.1";

/// The shortest time, in seconds, that is used as a divisor.
pub(super) const SHORT: f64 = 1e-9;

impl Test {
    /// Makes a test and its name.
    pub fn new(kind: Kind, prompt: u32, tokens: u32, depth: u32, batch: u32) -> Test {
        let mut name = match kind {
            Kind::Load => "load".to_string(),
            Kind::Compile => "compile".into(),
            Kind::FirstToken => "first token".into(),
            Kind::Prefill => format!("pp{prompt}"),
            Kind::Decode => format!("tg{tokens}"),
            Kind::EndToEnd => format!("pp{prompt}+tg{tokens}"),
        };
        if depth > 0 {
            name += &format!(" @ d{depth}");
        }
        if batch > 1 {
            name += &format!(" b{batch}");
        }
        Test { name, kind, prompt, tokens, depth, batch }
    }

    /// Number of tokens of a repetition, of all sequences together. `None` for a test without a rate of tokens.
    fn rated(&self) -> Option<u64> {
        let each = match self.kind {
            Kind::Load | Kind::Compile | Kind::FirstToken => return None,
            Kind::Prefill => u64::from(self.prompt),
            Kind::Decode => u64::from(self.tokens),
            Kind::EndToEnd => u64::from(self.prompt) + u64::from(self.tokens),
        };
        Some(each * u64::from(self.batch))
    }
}

impl Time {
    /// Times by the host's clock: seconds of each repetition, and seconds from token to token.
    pub fn wall(test: &Test, samples: Vec<f64>, token_samples: Vec<f64>) -> Time {
        let rate = |tokens: u64| {
            // The clock of a web page is coarse, and may measure no time at all.
            let rates: Vec<f64> = samples.iter().map(|seconds| tokens as f64 / seconds.max(SHORT)).collect();
            Summary::of(&rates)
        };
        Time {
            clock: Clock::Wall,
            seconds: Summary::of(&samples),
            tokens_per_second: test.rated().and_then(rate),
            token_seconds: Percentiles::of(&token_samples),
            samples,
            token_samples,
            bytes_per_second: None,
            bandwidth_share: None,
            busy_share: None,
        }
    }
}

impl Device {
    /// Describes the device that runs plans. `deny` has the features that the caller denied.
    pub fn new(exec: &Exec, deny: Deny) -> Device {
        let caps = exec.caps();
        let words = |adapter: &str, backend: &str, kind: &str, driver: &str| Device {
            adapter: adapter.into(),
            backend: backend.into(),
            kind: kind.into(),
            driver: driver.into(),
            f16: caps.f16,
            subgroup: caps.subgroup,
            coopmat: caps.coopmat,
            denied: deny.names().into_iter().map(String::from).collect(),
        };
        match exec {
            Exec::Gpu(gpu) => {
                let info = gpu.info();
                words(&info.name, &info.backend, info.kind, &info.driver)
            }
            Exec::Cpu(_) => words("cpu", "cpu", "cpu", ""),
            Exec::Dry(_) => words("dry run", "dry run", "other", ""),
        }
    }
}

impl Model {
    /// Describes the model of an engine.
    pub fn new(engine: &Engine, name: &str, synthetic: bool) -> Model {
        let explain = engine.explain();
        let held = explain.device_bytes;
        let weights = match engine.model().format() {
            Format::Quant(Quant { bits, group: 64, .. }) => format!("q{bits}"),
            other => other.to_string(),
        };
        Model {
            name: name.into(),
            synthetic,
            weights,
            kv: explain.kv,
            prefill_scan: Some(explain.prefill_scan),
            bytes_per_token: explain.bytes_per_token,
            dispatches_per_token: explain.dispatches_per_token as u64,
            weight_bytes: held.weights,
            arena_bytes: held.arena,
            scratch_bytes: held.scratch,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_llama_bench() {
        let name = |kind, prompt, tokens, depth, batch| Test::new(kind, prompt, tokens, depth, batch).name;
        assert_eq!(name(Kind::Prefill, 512, 0, 0, 1), "pp512");
        assert_eq!(name(Kind::Decode, 0, 128, 4096, 1), "tg128 @ d4096");
        assert_eq!(name(Kind::EndToEnd, 512, 128, 0, 8), "pp512+tg128 b8");
        assert_eq!(name(Kind::FirstToken, 512, 1, 0, 1), "first token");
        assert_eq!((name(Kind::Load, 0, 0, 0, 1), name(Kind::Compile, 0, 0, 0, 1)), ("load".into(), "compile".into()));
    }

    #[test]
    fn rates_are_of_all_sequences() {
        let rate = |kind, batch| {
            let test = Test::new(kind, 100, 20, 0, batch);
            Time::wall(&test, vec![2.0, 4.0, 0.5], vec![]).tokens_per_second.map(|rate| rate.median)
        };
        assert_eq!(rate(Kind::Prefill, 1), Some(50.0));
        assert_eq!(rate(Kind::Decode, 8), Some(80.0));
        assert_eq!(rate(Kind::EndToEnd, 1), Some(60.0));
        assert_eq!(rate(Kind::FirstToken, 1), None);
        assert_eq!(rate(Kind::Load, 1), None);
    }

    #[test]
    fn the_version_of_wgpu_is_the_locked_one() {
        let lock = include_str!("../../Cargo.lock").replace('\r', "");
        let locked = |version: &str| lock.contains(&format!("name = \"wgpu\"\nversion = \"{version}\"\n"));
        assert!(locked(WGPU), "wgpu in Cargo.lock is not {WGPU}");
        assert!(!locked("0.0.0"));
    }
}
