//! Compares every operator with its CPU twin, on the device that the page uses.

use crate::device::Device;
use nemoflash::check::{Check, Outcome, by_size, bytes};
use nemoflash::ops::{Case, seeded};
use serde_json::json;
use std::collections::VecDeque;
use wasm_bindgen::prelude::*;

/// Examples that bind more bytes are left to the test suites, because they take as long as all others together.
const LARGE: u64 = 32 << 20;

/// The operators that are left to check.
#[wasm_bindgen]
pub struct SelfCheck {
    device: Device,
    operators: VecDeque<(&'static str, Vec<(u64, Case)>)>,
}

#[wasm_bindgen]
impl SelfCheck {
    /// A check of all operators. With `most` above 0, it runs at most so many examples of each, the smallest first.
    #[wasm_bindgen(constructor)]
    pub fn new(device: Device, most: usize) -> SelfCheck {
        let mut operators: VecDeque<(&'static str, Vec<(u64, Case)>)> = VecDeque::new();
        // The seed gives each example the inputs that it has in the test suite.
        let mut cases = by_size(seeded());
        cases.retain(|(_, case)| case.runs_on(device.exec.caps()));
        for (seed, case) in cases {
            let name = case.op.kernel().name;
            match operators.iter_mut().find(|(other, _)| *other == name) {
                Some((_, cases)) if bytes(&case) > LARGE || (most > 0 && cases.len() >= most) => {}
                Some((_, cases)) => cases.push((seed, case)),
                None => operators.push_back((name, vec![(seed, case)])),
            }
        }
        operators.make_contiguous().sort_by_key(|(name, _)| *name);
        SelfCheck { device, operators }
    }

    /// How many operators are left.
    pub fn left(&self) -> usize {
        self.operators.len()
    }

    /// Checks the next operator. Returns its result as in `nemoflash doctor --json`, without the time.
    pub async fn next(&mut self) -> Result<Option<String>, JsValue> {
        let Some((name, cases)) = self.operators.pop_front() else { return Ok(None) };
        let (mut outcome, count) = (Outcome::default(), cases.len());
        for (seed, case) in cases {
            let example = format!("{:?}", case.op);
            let result = match Check::new(case, seed).await {
                Ok(mut check) => check.run(&mut self.device.exec).await,
                Err(error) => Err(error),
            };
            match result {
                Ok(found) => outcome.add(found),
                Err(error) => {
                    outcome.faults.push(format!("{example}: {error}"));
                    // The next operator gets a new device, so that this error cannot affect its result.
                    self.device = self.device.again().await?;
                }
            }
        }
        let result = if outcome.faults.is_empty() { "pass" } else { "fail" };
        let report = json!({
            "name": name,
            "result": result,
            "examples": count,
            "worst_ratio": outcome.ratio,
            "tolerance": outcome.tolerance,
            "faults": outcome.faults,
        });
        Ok(Some(report.to_string()))
    }
}
