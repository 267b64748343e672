//! What the small model `fables` must say: the gate in front of a benchmark.

use super::report::Gate;
use crate::Result;
use crate::engine::{Engine, Event};
use crate::sampling::Sampling;
use std::ops::ControlFlow;

/// "Once upon a time" in the tokens of `fables`.
pub const PROMPT: [u32; 4] = [3124, 709, 262, 536];
/// What the float64 reference says next (`tests/golden/fables.safetensors`). At each of these steps the second-best
/// logit is at least 0.022 behind, twelve times what keys and values in f16 change.
pub const GOLDEN: [u32; 32] = [
    15, 273, 541, 282, 525, 279, 263, 659, 273, 352, 15, 360, 44, 397, 262, 1030, 421, 379, 262, 659, 364, 1030, 15,
    273, 311, 569, 659, 384, 360, 845, 15, 2013,
];

/// Whether an engine of `fables` says what it must; nothing if `go` ended it. Slot 0 is spent afterwards.
///
/// # Errors
/// As [`Engine::generate`].
pub async fn golden(engine: &mut Engine, go: &mut dyn FnMut() -> ControlFlow<()>) -> Result<Option<Gate>> {
    engine.begin(0, &Sampling::default())?;
    let (mut got, mut result) = (vec![], ControlFlow::Continue(()));
    let mut on_event = |event| {
        if let Event::Token(id) = event {
            got.push(id);
        }
        result = go();
        result
    };
    engine.generate(0, &PROMPT, GOLDEN.len() as u32, &mut on_event).await?;
    let gate = if got == GOLDEN { Gate::Passed } else { Gate::Failed };
    Ok(result.is_continue().then_some(gate))
}

#[cfg(test)]
mod tests {
    use super::super::measure::tests::fables;
    use super::*;
    use pollster::block_on;

    #[test]
    fn other_weights_say_something_else() {
        let gate = |spoil: fn(&mut [u8]), go: ControlFlow<()>| {
            let mut engine = block_on(fables(64, spoil)).unwrap();
            block_on(golden(&mut engine, &mut || go)).unwrap()
        };
        let go = ControlFlow::Continue(());
        assert_eq!(gate(|_| {}, go), Some(Gate::Passed));
        // Half of what is in the last tensors.
        let spoil = |weights: &mut [u8]| {
            let half = weights.len() / 4 * 2;
            weights[half..].chunks_exact_mut(2).for_each(|number| number[0] ^= 0x80);
        };
        assert_eq!(gate(spoil, go), Some(Gate::Failed));
        assert_eq!(gate(|_| {}, ControlFlow::Break(())), None);
    }
}
