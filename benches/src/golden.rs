//! The golden check: `fables` must say its golden tokens before the times of a benchmark count.

use crate::report::Gate;
use nemoflash::{Engine, Event, Result, Sampling};
use std::ops::ControlFlow;

/// "Once upon a time" in the tokens of `fables`.
pub const PROMPT: [u32; 4] = [3124, 709, 262, 536];
/// The tokens that the float64 reference says after that (`tests/golden/fables.safetensors`). At each of these steps
/// the second-best logit is at least 0.022 below the best, which is twelve times as much as storing keys and values in
/// f16 changes.
pub const GOLDEN: [u32; 32] = [
    15, 273, 541, 282, 525, 279, 263, 659, 273, 352, 15, 360, 44, 397, 262, 1030, 421, 379, 262, 659, 364, 1030, 15,
    273, 311, 569, 659, 384, 360, 845, 15, 2013,
];

/// Number of tokens of context that [`said`] needs for its full answer.
pub const CONTEXT: u32 = (PROMPT.len() + GOLDEN.len()) as u32;

/// The tokens that an engine says after [`PROMPT`] with greedy choice: 32 tokens, or as many as fit into its context
/// ([`CONTEXT`]). `None` if `go` ended it. Rows of a benchmark contain these tokens, so that devices can be compared
/// for any model. The sequence of slot 0 is lost.
///
/// # Errors
/// As [`Engine::generate`].
pub async fn said(engine: &mut Engine, go: &mut dyn FnMut() -> ControlFlow<()>) -> Result<Option<Vec<u32>>> {
    let prompt = PROMPT.map(|id| id % engine.config().vocab_size);
    let (mut said, mut result) = (vec![], ControlFlow::Continue(()));
    if engine.context() < PROMPT.len() as u32 {
        return Ok(Some(said));
    }
    engine.begin(0, &Sampling::default())?;
    let mut on_event = |event| {
        if let Event::Token(id) = event {
            said.push(id);
        }
        result = go();
        result
    };
    engine.generate(0, &prompt, GOLDEN.len() as u32, &mut on_event).await?;
    Ok(result.is_continue().then_some(said))
}

/// The result of the golden check, from what an engine of `fables` has [`said`]. If the context was too short for all
/// tokens and those that fit are right, the result is "not run".
pub fn gate(said: &[u32]) -> Gate {
    match said.len() == GOLDEN.len() {
        true if said == GOLDEN => Gate::Passed,
        false if GOLDEN.starts_with(said) => Gate::NotRun,
        _ => Gate::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::tests::fables;
    use pollster::block_on;

    #[test]
    fn other_weights_say_something_else() {
        let say = |context, spoil: fn(&mut [u8]), go: ControlFlow<()>| {
            let mut engine = block_on(fables(context, spoil)).unwrap();
            block_on(said(&mut engine, &mut || go)).unwrap()
        };
        let go = ControlFlow::Continue(());
        assert_eq!(say(64, |_| {}, go).map(|said| gate(&said)), Some(Gate::Passed));
        // Flips the lowest exponent bit of the last half of the weights, which halves or doubles each of them.
        let spoil = |weights: &mut [u8]| {
            let half = weights.len() / 4 * 2;
            weights[half..].chunks_exact_mut(2).for_each(|number| number[0] ^= 0x80);
        };
        assert_eq!(say(64, spoil, go).map(|said| gate(&said)), Some(Gate::Failed));
        assert_eq!(say(64, |_| {}, ControlFlow::Break(())), None);
        // With a short context, as many tokens as fit. The last of them is not run.
        assert_eq!(say(8, |_| {}, go).as_deref(), Some(&GOLDEN[..5]));
        assert_eq!([gate(&GOLDEN[..5]), gate(&GOLDEN[1..5])], [Gate::NotRun, Gate::Failed]);
        assert_eq!(say(3, |_| {}, go), Some(vec![]));
    }
}
