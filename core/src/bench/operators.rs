//! Where the time of a step goes.

use super::measure::ids;
use super::report::{Kind, Operator, Test};
use crate::engine::{Dispatch, Engine};
use crate::sampling::Sampling;
use crate::{Error, Result};
use std::collections::BTreeMap;
use std::ops::ControlFlow;

/// What each operator of a step takes on the device, the mean of `steps` of them, largest first; those with the same
/// numbers are together. The step is that of one token for [`Kind::Decode`]; for [`Kind::Prefill`] and
/// [`Kind::FirstToken`] it is the last one of the prompt, with the choice of a token behind it.
///
/// Empty for other kinds, for several sequences at a time, and where the device cannot tell. Slot 0 is spent afterwards.
///
/// # Errors
/// As [`Engine::step`].
pub async fn operators(engine: &mut Engine, test: &Test, steps: u32) -> Result<Vec<Operator>> {
    let tokens = match test.kind {
        Kind::Decode => 1,
        Kind::Prefill | Kind::FirstToken => test.prompt.min(engine.prefill_rows()),
        Kind::Load | Kind::Compile | Kind::EndToEnd => return Ok(vec![]),
    };
    if steps == 0 || test.batch > 1 || tokens == 0 {
        return Ok(vec![]);
    }
    let ids = ids(engine, test.depth + test.prompt.max(1));
    let (before, step) = ids.split_at(ids.len() - tokens as usize);
    engine.begin(0, &Sampling::default())?;
    // The first one compiles, warms up, and tells whether the device can: before a long text is read for nothing.
    match engine.profile(0, step).await {
        Err(Error::Limit { .. }) => return Ok(vec![]),
        first => drop(first?),
    }
    engine.begin(0, &Sampling::default())?;
    let _ = engine.prefill(0, before, &mut |_| ControlFlow::Continue(())).await?;
    let mut sums: BTreeMap<(&str, String), Operator> = BTreeMap::new();
    for _ in 0..steps {
        let dispatches = engine.profile(0, step).await?;
        for Dispatch { part, kernel, op, bytes, seconds } in dispatches {
            let sum = sums.entry((part, op.clone())).or_insert_with(|| Operator {
                part: part.into(),
                kernel: kernel.into(),
                op,
                dispatches: 0,
                seconds: 0.0,
                bytes: 0,
            });
            (sum.dispatches, sum.seconds, sum.bytes) = (sum.dispatches + 1, sum.seconds + seconds, sum.bytes + bytes);
        }
    }
    let mut operators: Vec<Operator> = sums.into_values().collect();
    for operator in &mut operators {
        operator.dispatches /= steps;
        operator.seconds /= f64::from(steps);
        operator.bytes /= u64::from(steps);
    }
    operators.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
    Ok(operators)
}
