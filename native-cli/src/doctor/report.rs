//! The results of the checks: a text for people, and JSON for bug reports.

use crate::devices::{object, table};
use anyhow::Result;
use nemoflash::check::Outcome;
use nemoflash::{AdapterInfo, Caps};
use serde::Serialize;
use serde_json::{Value, json};
use std::time::Instant;

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Pass,
    Fail,
    NotRun,
}

impl Verdict {
    fn words(self) -> &'static str {
        match self {
            Verdict::Pass => "pass",
            Verdict::Fail => "FAIL",
            Verdict::NotRun => "not run",
        }
    }
}

/// The results of an operator's examples.
#[derive(Debug, Default)]
pub struct Operator {
    /// Its kernel.
    pub name: &'static str,
    /// How many examples were run.
    pub run: usize,
    /// How many examples were not run, because they are large or there was no time.
    pub left: usize,
    /// The outcome of all examples that were run.
    pub outcome: Outcome,
    pub seconds: f64,
}

impl Operator {
    pub fn verdict(&self) -> Verdict {
        match (self.run, self.outcome.faults.is_empty()) {
            (_, false) => Verdict::Fail,
            (0, true) => Verdict::NotRun,
            (_, true) => Verdict::Pass,
        }
    }

    fn json(&self) -> Value {
        json!({
            "name": self.name,
            "result": self.verdict(),
            "examples": self.run,
            "larger_examples": self.left,
            "worst_ratio": self.outcome.ratio,
            "tolerance": self.outcome.tolerance,
            "seconds": self.seconds,
            "faults": self.outcome.faults,
        })
    }
}

/// Any other check.
#[derive(Debug, Serialize)]
pub struct Item {
    pub name: String,
    pub result: Verdict,
    /// What was found, or what is wrong.
    pub detail: String,
    pub seconds: f64,
}

impl Item {
    /// Runs a check. An error of `work` makes the check fail, and the other checks still run.
    pub async fn of(name: &str, work: impl Future<Output = Result<String>>) -> Item {
        let start = Instant::now();
        let (result, detail) = match work.await {
            Ok(detail) => (Verdict::Pass, detail),
            Err(error) => (Verdict::Fail, format!("{error:#}")),
        };
        Item { name: name.into(), result, detail, seconds: start.elapsed().as_secs_f64() }
    }

    pub fn fail(name: &str, detail: String) -> Item {
        Item { name: name.into(), result: Verdict::Fail, detail, seconds: 0.0 }
    }

    pub fn not_run(name: &str, why: &str) -> Item {
        Item { name: name.into(), result: Verdict::NotRun, detail: why.into(), seconds: 0.0 }
    }
}

/// The results of all checks.
#[derive(Debug)]
pub struct Report {
    /// The adapter, and the features and limits of its device. None on the CPU.
    pub gpu: Option<(AdapterInfo, Caps)>,
    pub operators: Vec<Operator>,
    pub checks: Vec<Item>,
    pub seconds: f64,
}

const VERSION: &str = env!("CARGO_PKG_VERSION");
const BUILD: &str = if cfg!(debug_assertions) { "debug" } else { "release" };

impl Report {
    pub fn new() -> Report {
        Report { gpu: None, operators: vec![], checks: vec![], seconds: 0.0 }
    }

    /// How many operators and checks ended with this verdict.
    pub fn count(&self, verdict: Verdict) -> usize {
        let verdicts = self.operators.iter().map(Operator::verdict).chain(self.checks.iter().map(|item| item.result));
        verdicts.filter(|other| *other == verdict).count()
    }

    pub fn json(&self) -> Value {
        json!({
            "ok": self.count(Verdict::Fail) == 0,
            "version": VERSION,
            "build": BUILD,
            "os": std::env::consts::OS,
            "arch": std::env::consts::ARCH,
            "adapter": self.gpu.as_ref().map(|(info, _)| object(info)),
            "caps": self.gpu.as_ref().map(|(_, caps)| caps),
            "operators": self.operators.iter().map(Operator::json).collect::<Vec<_>>(),
            "checks": self.checks,
            "seconds": self.seconds,
        })
    }

    pub fn page(&self) -> String {
        let mut page =
            format!("nemoflash {VERSION} ({BUILD} build) on {} {}\n", std::env::consts::OS, std::env::consts::ARCH);
        page += &match &self.gpu {
            Some((info, caps)) => device(info, caps),
            None => "on the CPU\n".to_owned(),
        };
        if !self.operators.is_empty() {
            let mut rows =
                vec![["OPERATOR", "RESULT", "EXAMPLES", "WORST RATIO", "TOLERANCE", "SECONDS"].map(str::to_owned)];
            rows.extend(self.operators.iter().map(row));
            page += &format!("\nOperators against their CPU twins\n{}", table(&rows));
            let left: usize = self.operators.iter().map(|operator| operator.left).sum();
            if left > 0 {
                page += &format!("{left} larger examples are left to the test suite\n");
            }
        }
        let mut rows = vec![["CHECK", "RESULT", "SECONDS", "SEEN"].map(str::to_owned)];
        rows.extend(self.checks.iter().map(|item| {
            let detail = item.detail.replace('\n', " ");
            [item.name.clone(), item.result.words().to_owned(), format!("{:.2}", item.seconds), detail]
        }));
        page += &format!("\n{}\n", table(&rows));
        for operator in &self.operators {
            for fault in &operator.outcome.faults {
                page += &format!("FAIL {}: {}\n", operator.name, fault.replace('\n', " "));
            }
        }
        let [pass, fail, not_run] = [Verdict::Pass, Verdict::Fail, Verdict::NotRun].map(|verdict| self.count(verdict));
        page + &format!("{pass} passed, {fail} failed, {not_run} not run, in {:.1} s\n", self.seconds)
    }
}

fn row(operator: &Operator) -> [String; 6] {
    let Operator { name, run, left, outcome, seconds, .. } = operator;
    let (ratio, tolerance) = match (run, outcome.tolerance) {
        (0, _) => ("-".to_owned(), "-".to_owned()),
        (_, 0.0) => ("equal".to_owned(), "equal".to_owned()),
        (_, tolerance) => (format!("{:.1e}", outcome.ratio), format!("{tolerance:.0e}")),
    };
    let (result, examples) = (operator.verdict().words().to_owned(), format!("{run} of {}", run + left));
    [(*name).to_owned(), result, examples, ratio, tolerance, format!("{seconds:.2}")]
}

/// Describes the device as a text.
fn device(info: &AdapterInfo, caps: &Caps) -> String {
    let AdapterInfo { name, backend, kind, driver, .. } = info;
    let subgroups = match caps.subgroup {
        Some(size) => format!("subgroups of {size}"),
        None => "no subgroups".into(),
    };
    let f16 = if caps.f16 { "f16" } else { "no f16" };
    let coopmat = if caps.coopmat { "cooperative matrices" } else { "no cooperative matrices" };
    format!(
        "adapter: {name} ({backend}, {kind})\ndriver:  {driver}\n\
         device:  {f16}, {subgroups}, {coopmat}, bindings of {} MiB, buffers of {} MiB, {} storage buffers, workgroups of {} with {} \
         KiB\n",
        caps.max_binding >> 20,
        caps.max_buffer >> 20,
        caps.max_storage_buffers,
        caps.max_invocations,
        caps.workgroup_bytes >> 10,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_seen() {
        let mut report = Report::new();
        report.operators.push(Operator { name: "good", run: 2, left: 3, ..Operator::default() });
        report.checks.push(Item::not_run("more", "there is no more"));
        assert_eq!(report.json()["ok"], true);
        assert!(!report.page().contains("FAIL") && report.page().contains("1 passed, 0 failed, 1 not run"));
        let outcome = Outcome { ratio: 1e-7, tolerance: 3e-6, faults: vec!["y: ratio 1e-2\nand more".into()] };
        report.operators.push(Operator { name: "bad", run: 1, outcome, ..Operator::default() });
        report.checks.push(Item::fail("worse", "no such thing".into()));
        let (page, json) = (report.page(), report.json());
        for line in ["2 of 5", "FAIL bad: y: ratio 1e-2 and more", "no such thing", "1 passed, 2 failed, 1 not run"] {
            assert!(page.contains(line), "{line}: {page}");
        }
        assert_eq!((&json["ok"], &json["operators"][1]["result"]), (&Value::from(false), &Value::from("fail")));
        assert_eq!(json["checks"][0]["result"], "not_run");
    }
}
