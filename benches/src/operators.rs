//! Measures how the time of a step divides among its operators.

use crate::measure::{Go, Settings, ids};
use crate::report::{Kind, Operator, Test};
use nemoflash::{Dispatch, Engine, Error, Part, Result, Sampling};
use std::collections::BTreeMap;

/// The averages are steady if their standard errors are below this share of the whole step's time.
const STEADY: f64 = 0.02;

/// The device's time of each operator of a step, largest first: the mean over `settings.profile` steps or more.
/// Operators with the same numbers are added together. For [`Kind::Decode`] the step is one token. For
/// [`Kind::Prefill`] and [`Kind::FirstToken`] it is the last step of the prompt, with the choice of a token. Returns
/// `None` if `go` ended it.
///
/// The result is empty for other kinds, for several sequences at a time, if the device has no timestamps, and if the
/// averages did not become steady within `settings.steady` seconds. The sequence of slot 0 is lost.
///
/// # Errors
/// As [`Engine::step`].
pub async fn operators(
    engine: &mut Engine,
    test: &Test,
    settings: &Settings,
    go: &mut Go<'_>,
) -> Result<Option<Vec<Operator>>> {
    let tokens = match test.kind {
        Kind::Decode => 1,
        Kind::Prefill | Kind::FirstToken => test.prompt.min(engine.prefill_rows()),
        Kind::Load | Kind::Compile | Kind::EndToEnd => return Ok(Some(vec![])),
    };
    if settings.profile == 0 || test.batch > 1 || tokens == 0 {
        return Ok(Some(vec![]));
    }
    let ids = ids(engine, test.depth + test.prompt.max(1));
    let (before, step) = ids.split_at(ids.len() - tokens as usize);
    engine.begin(0, &Sampling::default())?;
    // The first step compiles, warms up, and shows whether the device has timestamps. It runs before a long text is
    // read, which would be for nothing without timestamps.
    match engine.profile(0, step).await {
        Err(Error::Limit { .. }) => return Ok(Some(vec![])),
        first => drop(first?),
    }
    let last = settings.runs + settings.warm_up.max(1) - 1;
    engine.begin(0, &Sampling::default())?;
    if engine.prefill(0, before, &mut |_| go(last)).await?.is_break() {
        return Ok(None);
    }
    let (mut sums, mut steps, begin) = (Sums::new(), 0, (settings.clock)());
    loop {
        if go(last).is_break() {
            return Ok(None);
        }
        add(&mut sums, engine.profile(0, step).await?);
        steps += 1;
        match settings.steady {
            _ if steps < settings.profile => {}
            Some(_) if unsure(&sums, steps) <= STEADY => break,
            Some(seconds) if (settings.clock)() - begin < seconds => {}
            Some(_) => return Ok(Some(vec![])),
            None => break,
        }
    }
    let mut operators: Vec<Operator> = sums.into_values().map(|(operator, _)| operator).collect();
    for operator in &mut operators {
        operator.dispatches /= steps;
        operator.seconds /= f64::from(steps);
        operator.bytes /= u64::from(steps);
    }
    operators.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
    Ok(Some(operators))
}

/// For each operator, the sum over all steps, and the sum of the squares of its seconds.
type Sums = BTreeMap<(Part, String), (Operator, f64)>;

fn add(sums: &mut Sums, step: Vec<Dispatch>) {
    let mut seconds: BTreeMap<(Part, String), f64> = BTreeMap::new();
    for Dispatch { part, kernel, op, bytes, seconds: took } in step {
        let key = (part, op.clone());
        *seconds.entry(key.clone()).or_default() += took;
        let new =
            || Operator { part: part.name().into(), kernel: kernel.into(), op, dispatches: 0, seconds: 0.0, bytes: 0 };
        let (sum, _) = sums.entry(key).or_insert_with(|| (new(), 0.0));
        (sum.dispatches, sum.seconds, sum.bytes) = (sum.dispatches + 1, sum.seconds + took, sum.bytes + bytes);
    }
    for (key, took) in seconds {
        sums.entry(key).and_modify(|(_, squares)| *squares += took * took);
    }
}

/// The largest standard error of an operator's mean, as a share of the step's time. Timestamps that are rounded, as in
/// a browser, differ from the true times in both directions: a single one is off, but the mean of many is not.
fn unsure(sums: &Sums, steps: u32) -> f64 {
    let count = f64::from(steps);
    let error = |(sum, squares): &(Operator, f64)| {
        let variance = (squares - sum.seconds * sum.seconds / count).max(0.0) / (count - 1.0);
        (variance / count).sqrt()
    };
    let step = sums.values().map(|(sum, _)| sum.seconds).sum::<f64>() / count;
    match sums.values().map(error).fold(0.0, f64::max) / step {
        share if steps > 1 && share.is_finite() => share,
        _ => f64::INFINITY,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One step, which begins at `at`, of two operators that take 30 and 170 µs. The timestamps are rounded down to
    /// multiples of `quantum`.
    fn step(at: f64, quantum: f64) -> Vec<Dispatch> {
        let stamp = |at: f64| if quantum > 0.0 { (at / quantum).floor() * quantum } else { at };
        let took = |from: f64, to: f64| stamp(to) - stamp(from);
        let dispatch = |op: &str, seconds| Dispatch { part: Part::Ffn, kernel: "k", op: op.into(), bytes: 1, seconds };
        vec![dispatch("a", took(at, at + 30e-6)), dispatch("b", took(at + 30e-6, at + 200e-6))]
    }

    #[test]
    fn rounded_stamps_are_right_on_average_and_known_to_be_unsure() {
        let sums = |steps: u32, quantum: f64| {
            let mut sums = Sums::new();
            // Steps begin at any time between two ticks of the timestamps.
            (0..steps)
                .for_each(|n| add(&mut sums, step(f64::from(n) * 1e-3 + f64::from(n * 37 % 100) * 1e-6, quantum)));
            sums
        };
        let mean =
            |sums: &Sums, steps: u32| sums.values().map(|(sum, _)| sum.seconds / f64::from(steps)).collect::<Vec<_>>();
        let exact = sums(2, 0.0);
        assert!(unsure(&exact, 2) < 1e-6 && (mean(&exact, 2)[0] - 30e-6).abs() < 1e-9);
        // The mean of eight measurements, each 0 or 100 µs, is worth nothing, and the standard error shows that.
        assert!(unsure(&sums(8, 1e-4), 8) > STEADY);
        let many = sums(400, 1e-4);
        assert!(unsure(&many, 400) < STEADY, "{}", unsure(&many, 400));
        for (mean, truth) in mean(&many, 400).into_iter().zip([30e-6, 170e-6]) {
            assert!((mean - truth).abs() < 4e-6, "{mean}");
        }
        // Nothing is known from a single step, or from timestamps that never change.
        assert_eq!(unsure(&sums(1, 0.0), 1), f64::INFINITY);
        assert_eq!(unsure(&sums(8, 1.0), 8), f64::INFINITY);
    }
}
