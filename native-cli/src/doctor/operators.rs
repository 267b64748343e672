//! Compares every operator with its CPU twin.

use super::report::Operator;
use anyhow::Result;
use nemoflash::check::{Check, Outcome, by_size, bytes};
use nemoflash::ops::Case;
use nemoflash::{Error, Exec};
use std::time::{Duration, Instant};

/// Examples that bind more bytes are left to the test suite, because one of them can take as long as all others together.
const LARGE: u64 = 32 << 20;

/// Runs the examples from small to large: one of each operator, and more while there is time. After an error, `again` opens a
/// new device for the next example. If the device is lost or cannot be opened, the second result says why, and no further
/// example runs.
pub async fn check(
    exec: &mut Exec,
    cases: Vec<(u64, Case)>,
    time: Duration,
    again: &impl AsyncFn() -> Result<Exec>,
) -> (Vec<Operator>, Option<String>) {
    let start = Instant::now();
    let mut operators: Vec<Operator> = vec![];
    let mut lost = None;
    // The seed gives each example the inputs that it has in the test suite.
    for (seed, case) in by_size(cases) {
        let name = case.op.kernel().name;
        let known = operators.iter().position(|operator| operator.name == name);
        let at = known.unwrap_or_else(|| {
            operators.push(Operator { name, ..Operator::default() });
            operators.len() - 1
        });
        let operator = &mut operators[at];
        if lost.is_some() || (operator.run > 0 && (start.elapsed() > time || bytes(&case) > LARGE)) {
            operator.left += 1;
            continue;
        }
        let (begin, example) = (Instant::now(), format!("{:?}", case.op));
        let result = run(exec, case, seed).await;
        operator.seconds += begin.elapsed().as_secs_f64();
        operator.run += 1;
        match result {
            Ok(outcome) => operator.outcome.add(outcome),
            Err(error) => {
                operator.outcome.faults.push(format!("{example}: {error}"));
                if matches!(exec, Exec::Gpu(gpu) if gpu.lost()) {
                    lost = Some(error.to_string());
                } else {
                    match again().await {
                        Ok(new) => *exec = new,
                        Err(error) => lost = Some(format!("{error:#}")),
                    }
                }
            }
        }
    }
    operators.sort_by_key(|operator| operator.name);
    (operators, lost)
}

async fn run(exec: &mut Exec, case: Case, seed: u64) -> Result<Outcome, Error> {
    Check::new(case, seed).await?.run(exec).await
}

#[cfg(test)]
mod tests {
    use super::super::report::Verdict;
    use super::*;
    use nemoflash::batch::Size;
    use nemoflash::kernel::{Const, Kernel, Source, write};
    use nemoflash::op::{Example, Op};
    use nemoflash::ops::seeded;
    use nemoflash::{Caps, Elem, Gpu, GpuOptions};
    use pollster::block_on;
    use std::collections::HashSet;
    use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

    nemoflash::numbers! {
        /// Counts up. With a fault, its twin gives another number each time, and its kernel is not valid WGSL.
        pub struct Planted {
            /// Whether there is a fault: 0 or 1.
            pub fault: u32,
        }
    }

    const HEAD: &str = "struct Numbers { fault: u32 }
@group(0) @binding(0) var<uniform> n: Numbers;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
@compute @workgroup_size(64)
fn planted(@builtin(global_invocation_id) id: vec3<u32>) {";

    impl Op for Planted {
        fn kernel(&self) -> Kernel {
            const GOOD: &[Source] =
                &[Source::Text(HEAD), Source::Text("if id.x < 64u { y[id.x] = f32(id.x + n.fault); } }")];
            const BAD: &[Source] = &[Source::Text(HEAD), Source::Text("y[id.x] = no WGSL; }")];
            Kernel {
                name: if self.fault == 0 { "planted" } else { "planted_fault" },
                parts: if self.fault == 0 { GOOD } else { BAD },
                binds: const { &[write("y", Elem::F32)] },
            }
        }
        fn consts(&self, _: &Caps) -> Vec<Const> {
            vec![]
        }
        fn lens(&self) -> Vec<u64> {
            vec![64]
        }
        fn grid(&self, _: Size, _: &Caps) -> [u32; 3] {
            [1, 1, 1]
        }
        fn cpu(&self, _: Size, bufs: &mut [Vec<u32>]) {
            static RUNS: AtomicU32 = AtomicU32::new(0);
            let more = if self.fault == 0 { 0 } else { RUNS.fetch_add(1, Relaxed) };
            (0..64).for_each(|i| bufs[0][i as usize] = ((i + more) as f32).to_bits());
        }
        fn examples() -> Vec<Example<Self>> {
            vec![]
        }
    }

    fn planted(faults: &[u32]) -> Vec<(u64, Case)> {
        let case = |&fault| Example::rows(Planted { fault }, 1);
        (1..).zip(faults.iter().map(case).map(|e| Case { op: Box::new(e.op), batch: e.batch })).collect()
    }

    fn verdicts(operators: &[Operator]) -> Vec<(&'static str, Verdict, usize, usize)> {
        operators.iter().map(|o| (o.name, o.verdict(), o.run, o.left)).collect()
    }

    #[test]
    fn a_wrong_result_fails_and_stops_nothing() {
        let again = async || Ok(Exec::cpu());
        let run = |faults: &[u32], time| block_on(check(&mut Exec::cpu(), planted(faults), time, &again));
        let (operators, lost) = run(&[1, 0, 0, 1], Duration::MAX);
        assert_eq!(lost, None);
        assert_eq!(verdicts(&operators), [("planted", Verdict::Pass, 2, 0), ("planted_fault", Verdict::Fail, 2, 0)]);
        let fault = &operators[1].outcome.faults[0];
        assert!(fault.contains("Planted { fault: 1 }") && fault.contains("tolerance"), "{fault}");
        // Without time, each operator runs once.
        let (operators, _) = run(&[1, 0, 0, 1], Duration::ZERO);
        assert_eq!(verdicts(&operators), [("planted", Verdict::Pass, 1, 1), ("planted_fault", Verdict::Fail, 1, 1)]);
    }

    /// On the first adapter, if there is one: an error of the driver counts for the operator that caused it, and the next
    /// operator gets a new device.
    #[test]
    fn a_spoilt_device_is_opened_again() {
        let open = async || Ok(Exec::Gpu(Box::new(Gpu::new(&GpuOptions::default()).await?)));
        let mut exec = match block_on(open()) {
            Ok(exec) => exec,
            Err(error) => return crate::terminal::note(&format!("not run: a_spoilt_device_is_opened_again: {error}")),
        };
        let cases = || planted(&[1, 0, 0]);
        let (operators, lost) = block_on(check(&mut exec, cases(), Duration::MAX, &open));
        assert_eq!(lost, None);
        assert_eq!(verdicts(&operators), [("planted", Verdict::Pass, 2, 0), ("planted_fault", Verdict::Fail, 1, 0)]);
        // If the device cannot be opened again, the result says so, and the remaining examples do not run.
        let closed = async || anyhow::bail!("nobody is at home");
        let (operators, lost) = block_on(check(&mut exec, cases(), Duration::MAX, &closed));
        assert_eq!(lost.as_deref(), Some("nobody is at home"));
        assert_eq!(verdicts(&operators), [("planted", Verdict::NotRun, 0, 2), ("planted_fault", Verdict::Fail, 1, 0)]);
    }

    #[test]
    fn the_smallest_of_each_comes_first() {
        let names = |cases: &[(u64, Case)]| cases.iter().map(|(_, case)| case.op.kernel().name).collect::<Vec<_>>();
        let cases = by_size(seeded());
        let all = names(&cases);
        let kernels = all.iter().collect::<HashSet<_>>().len();
        assert_eq!(all[..kernels].iter().collect::<HashSet<_>>().len(), kernels);
        for half in [&cases[..kernels], &cases[kernels..]] {
            assert!(half.is_sorted_by_key(|(_, case)| bytes(case)));
        }
    }
}
