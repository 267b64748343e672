//! Runs the tests of a benchmark and times them.

use crate::describe::SHORT;
use crate::operators::operators;
use crate::report::{Kind, Operator, Test, Time};
use nemoflash::{Clock, Engine, Error, Event, Exec, Gpu, Result, Sampling, Snapshot};
use std::collections::HashMap;
use std::ops::ControlFlow;

/// How a test is measured.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Number of runs that count.
    pub runs: u32,
    /// Number of warm-up runs before them, which do not count. There is always at least one. On a GPU the last one is repeated
    /// until half a second has passed, because a GPU without work lowers its clock.
    pub warm_up: u32,
    /// Number of steps over which the times of operators are averaged. 0 turns this off.
    pub profile: u32,
    /// For devices with coarse timestamps, as in a browser: the most seconds in which further steps run until the
    /// averages are steady. If they do not become steady, no times of operators are reported.
    pub steady: Option<f64>,
    /// Bytes per second of the device's memory, if that is known: see [`memory_bytes_per_second`](super::memory_bytes_per_second).
    pub bandwidth: Option<f64>,
    /// The clock.
    pub clock: Clock,
}

/// Seconds of warm-up on a GPU. A GPU without work lowers its clock: without this, the first test after loading spread by
/// 14 to 18 % on an NVIDIA H200 (39,400 ± 5,450 tokens/s), and by less than 0.5 % with it (42,900 ± 190).
const WARM_UP: f64 = 0.5;

/// The result of a measurement.
#[derive(Clone, Debug, PartialEq)]
pub struct Measured {
    /// The time of the runs.
    pub time: Time,
    /// The time of each operator, if the device can measure it.
    pub operators: Vec<Operator>,
}

/// Called between the steps of a measurement with the number of the current run; 0 is the first warm-up run. `Break`
/// ends the measurement.
pub type Go<'a> = dyn FnMut(u32) -> ControlFlow<()> + 'a;

/// Tokens to run. Any tokens will do, as long as they are not all the same.
pub(super) fn ids(engine: &Engine, count: u32) -> Vec<u32> {
    (1..=count).map(|i| i.wrapping_mul(2_654_435_761) % engine.config().vocab_size).collect()
}

/// Times a test and its operators on an engine. Returns `None` if `go` ended it. The sequences of the slots that the
/// test uses are lost.
///
/// # Errors
/// [`Error::Parameter`] for a kind of test that does not run on an engine, or for more sequences than the engine has
/// slots; [`Error::Prompt`] if the context is too short; as [`Engine::step`].
pub async fn measure(
    engine: &mut Engine,
    test: &Test,
    settings: &Settings,
    go: &mut Go<'_>,
) -> Result<Option<Measured>> {
    let Some(mut time) = time(engine, test, settings, go).await? else { return Ok(None) };
    let Some(operators) = operators(engine, test, settings, go).await? else { return Ok(None) };
    let step = match (test.kind, time.token_seconds) {
        (Kind::Decode, Some(token)) => Some(token.p50),
        // The whole prompt is one step.
        (Kind::Prefill, _) if test.prompt <= engine.prefill_rows() => time.seconds.map(|seconds| seconds.median),
        _ => None,
    };
    if let (Kind::Decode, 1, Some(step)) = (test.kind, test.batch, step) {
        let rate = engine.explain().bytes_per_token as f64 / step.max(SHORT);
        time.bytes_per_second = Some(rate);
        time.bandwidth_share = settings.bandwidth.map(|most| rate / most);
    }
    // If each operator runs in a pass of its own, together they take longer than the step does.
    let inside = matches!(engine.exec(), Exec::Gpu(gpu) if gpu.stamps_inside());
    if let (Some(step), true) = (step, inside && !operators.is_empty()) {
        // A timed prefill computes no logits and chooses no token.
        let ends = |operator: &&Operator| test.kind == Kind::Decode || !["head", "pick"].contains(&&*operator.part);
        let busy: f64 = operators.iter().filter(ends).map(|operator| operator.seconds).sum();
        time.busy_share = Some((busy / step.max(SHORT)).min(1.0));
    }
    Ok(Some(Measured { time, operators }))
}

/// A test, and the selections of an engine's layers that take turns running it.
#[derive(Clone, Debug)]
pub struct Turns {
    /// The test that runs with each selection.
    pub test: Test,
    /// See [`Engine::select`].
    pub selections: Vec<Vec<usize>>,
}

/// As [`measure`], without the times of operators.
///
/// # Errors
/// As [`measure`].
pub async fn time(engine: &mut Engine, test: &Test, settings: &Settings, go: &mut Go<'_>) -> Result<Option<Time>> {
    let turns = [Turns { test: test.clone(), selections: vec![engine.selected().to_vec()] }];
    let times = side_by_side(engine, &turns, settings, go).await?;
    Ok(times.and_then(|times| times.into_iter().flatten().next()))
}

/// As [`time`], for several tests and selections of layers that take turns: one run of each, then the next run of each.
/// So slow changes of the machine (another program, a device that gets warm) affect all of them alike, and differences
/// can be computed run by run. The tokens in front are run through all selected layers. Afterwards the engine has the
/// selection that it had before.
///
/// # Errors
/// As [`measure`]; [`Error::Parameter`] if there is no such layer.
pub async fn side_by_side(
    engine: &mut Engine,
    turns: &[Turns],
    settings: &Settings,
    go: &mut Go<'_>,
) -> Result<Option<Vec<Vec<Time>>>> {
    let all = engine.selected().to_vec();
    let mut before = HashMap::new();
    let times = repeat(engine, turns, settings, &mut before, go).await;
    before.into_values().for_each(|snapshot| engine.release(snapshot));
    engine.select(&all)?;
    times
}

/// Runs the tests in turns. `before` gets a snapshot for each depth.
async fn repeat(
    engine: &mut Engine,
    turns: &[Turns],
    settings: &Settings,
    before: &mut HashMap<u32, Snapshot>,
    go: &mut Go<'_>,
) -> Result<Option<Vec<Vec<Time>>>> {
    for depth in turns.iter().map(|turns| turns.test.depth) {
        if depth > 0 && !before.contains_key(&depth) {
            engine.begin(0, &Sampling::default())?;
            let ids = ids(engine, depth);
            if engine.prefill(0, &ids, &mut |_| go(0)).await?.is_break() {
                return Ok(None);
            }
            before.insert(depth, engine.snapshot(0).await?);
        }
    }
    let mut times: Vec<Vec<_>> = turns.iter().map(|turns| vec![(vec![], vec![]); turns.selections.len()]).collect();
    let warm_up = settings.warm_up.max(1);
    let gpu = matches!(engine.exec(), Exec::Gpu(gpu) if !gpu.caps().software);
    let warm_until = (settings.clock)() + if gpu { WARM_UP } else { 0.0 };
    let mut index = 0;
    while index < warm_up + settings.runs {
        for (Turns { test, selections }, times) in turns.iter().zip(&mut times) {
            for (layers, (samples, tokens)) in selections.iter().zip(times) {
                engine.select(layers)?;
                for slot in 0..test.batch {
                    engine.begin(slot, &Sampling::default())?;
                    before.get(&test.depth).map_or(Ok(()), |snapshot| engine.restore(slot, snapshot))?;
                }
                // The beginning of a sequence is copied on the device. That is not timed.
                engine.wait().await?;
                let Some(run) = once(engine, test, settings.clock, &mut || go(index)).await? else { return Ok(None) };
                if index >= warm_up {
                    samples.push(run.seconds);
                    tokens.extend(run.tokens);
                }
            }
        }
        if index + 1 != warm_up || (settings.clock)() >= warm_until {
            index += 1;
        }
    }
    let mut told = vec![];
    for (Turns { test, .. }, times) in turns.iter().zip(times) {
        told.push(times.into_iter().map(|(samples, tokens)| Time::wall(test, samples, tokens)).collect());
    }
    Ok(Some(told))
}

struct Run {
    seconds: f64,
    /// Seconds from each token to the next.
    tokens: Vec<f64>,
}

/// One run in slots that already have the tokens in front. It ends by waiting for a token or for a step.
async fn once(
    engine: &mut Engine,
    test: &Test,
    clock: Clock,
    go: &mut dyn FnMut() -> ControlFlow<()>,
) -> Result<Option<Run>> {
    let prompt = ids(engine, test.prompt);
    let decode = test.kind == Kind::Decode;
    // Decode begins with a token that is not timed, because it fills the queue of steps.
    let (tokens, first) = if decode { (test.tokens + 1, vec![1]) } else { (test.tokens, prompt) };
    let begin = clock();
    let mut arrivals = vec![];
    let result = match test.kind {
        Kind::Load | Kind::Compile => {
            let why = format!("`{}` is timed by whoever loads the model", test.name);
            return Err(Error::Parameter { name: "test", why });
        }
        Kind::Prefill => {
            let mut result = ControlFlow::Continue(());
            for slot in 0..test.batch {
                if result.is_continue() {
                    result = engine.prefill(slot, &first, &mut |_| go()).await?;
                }
            }
            arrivals.push(clock());
            result
        }
        Kind::FirstToken | Kind::Decode | Kind::EndToEnd if test.batch == 1 => {
            let tokens = if test.kind == Kind::FirstToken { 1 } else { tokens };
            let mut result = ControlFlow::Continue(());
            let mut on_event = |event| {
                if let Event::Token(_) = event {
                    arrivals.push(clock());
                }
                result = go();
                result
            };
            engine.generate(0, &first, tokens, &mut on_event).await?;
            result
        }
        Kind::FirstToken | Kind::Decode | Kind::EndToEnd => {
            let mut on_step = |tokens| {
                if tokens {
                    arrivals.push(clock());
                }
                go()
            };
            together(engine, test.batch, &first, tokens, &mut on_step).await?
        }
    };
    let Some(&end) = arrivals.last() else { return Ok(None) };
    if result.is_break() {
        return Ok(None);
    }
    let begin = if decode { arrivals[0] } else { begin };
    let tokens = if decode { arrivals.windows(2).map(|pair| pair[1] - pair[0]).collect() } else { vec![] };
    Ok(Some(Run { seconds: end - begin, tokens }))
}

/// Runs several sequences: the prompt of each, then `tokens` steps of all of them. `on_step` is called after each step
/// with whether the step chose tokens.
async fn together(
    engine: &mut Engine,
    batch: u32,
    prompt: &[u32],
    tokens: u32,
    on_step: &mut dyn FnMut(bool) -> ControlFlow<()>,
) -> Result<ControlFlow<()>> {
    let Some((&last, before)) = prompt.split_last() else { return Ok(ControlFlow::Continue(())) };
    for slot in 0..batch {
        if engine.prefill(slot, before, &mut |_| on_step(false)).await?.is_break() {
            return Ok(ControlFlow::Break(()));
        }
    }
    let next: Vec<_> = (0..batch).map(|slot| (slot, last)).collect();
    engine.decode(&next, tokens, &mut |_| on_step(true)).await
}

/// Seconds in which a fresh device compiles the kernels that an engine has prepared: those of prefill and decode. A
/// driver or a browser may have kept some of them from before, and need not compile these again.
///
/// # Errors
/// [`Error::Device`].
pub async fn compile(gpu: &mut Gpu, engine: &Engine, clock: Clock) -> Result<f64> {
    let kernels = engine.kernels();
    gpu.wait().await?;
    let begin = clock();
    gpu.announce(&kernels);
    // A browser compiles in other threads. Waiting for the device includes waiting for that, because it does work in
    // order.
    gpu.wait().await?;
    Ok(clock() - begin)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::report::Gate;
    use nemoflash::{EngineOptions, Loader, Want};
    use pollster::block_on;
    use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

    static NOW: AtomicU64 = AtomicU64::new(0);
    static RUN: AtomicU32 = AtomicU32::new(0);

    /// Advances by one second per call, and by a hundred seconds during the first run.
    fn clock() -> f64 {
        NOW.fetch_add(if RUN.load(Relaxed) == 0 { 100 } else { 1 }, Relaxed) as f64
    }

    /// An engine with `fables` on the CPU. `spoil` may change its weights.
    pub async fn fables(context: u32, spoil: impl Fn(&mut [u8])) -> Result<Engine> {
        let config = include_bytes!("../../models/fables/config.json");
        let mut weights = include_bytes!("../../models/fables/model.safetensors").to_vec();
        spoil(&mut weights);
        let mut loader = Loader::new(Exec::cpu(), config, &[Some(weights.len() as u64)])?;
        while let Some(Want { offset, .. }) = loader.wants() {
            loader.push(&weights[offset as usize..]).await?;
        }
        Engine::new(loader.finish().await?, EngineOptions { context, slots: 2, ..Default::default() }).await
    }

    #[test]
    fn selections_are_timed_by_turns() {
        let mut engine = block_on(fables(64, |_| {})).unwrap();
        let layers = engine.selected().to_vec();
        assert_eq!(layers.len(), engine.config().layers.len());
        // This test needs another clock, because the other test counts the calls of `clock`.
        let settings = Settings { runs: 2, warm_up: 1, profile: 0, steady: None, bandwidth: None, clock: || 0.0 };
        let some = [layers[..1].to_vec(), layers.clone(), vec![]];
        let jobs =
            [3, 0].map(|depth| Turns { test: Test::new(Kind::Decode, 0, 4, depth, 1), selections: some.to_vec() });
        let turns = std::cell::RefCell::new(vec![]);
        let mut go = |run| {
            turns.borrow_mut().push(run);
            ControlFlow::Continue(())
        };
        let times = block_on(side_by_side(&mut engine, &jobs, &settings, &mut go)).unwrap().unwrap();
        let samples = times.iter().map(|times| times.iter().map(|time| time.samples.len()).collect::<Vec<_>>());
        assert_eq!(samples.collect::<Vec<_>>(), [[2; 3]; 2]);
        assert!(turns.borrow().is_sorted());
        assert_eq!(engine.selected(), layers);
        // What other selections of layers have computed before does not change a text. The current selection does.
        let gate = |engine: &mut Engine| {
            let said = block_on(crate::said(engine, &mut || ControlFlow::Continue(()))).unwrap().unwrap();
            crate::gate(&said)
        };
        assert_eq!(gate(&mut engine), Gate::Passed);
        engine.select(&layers[1..]).unwrap();
        assert_eq!(gate(&mut engine), Gate::Failed);
        let none = [Turns { test: Test::new(Kind::Decode, 0, 4, 0, 1), selections: vec![vec![99]] }];
        let none = block_on(side_by_side(&mut engine, &none, &settings, &mut |_| ControlFlow::Continue(())));
        assert!(matches!(none, Err(Error::Parameter { .. })));
    }

    #[test]
    fn runs_are_counted_and_the_first_is_not() {
        let mut engine = block_on(fables(16, |_| {})).unwrap();
        let settings = Settings { runs: 3, warm_up: 0, profile: 1, steady: None, bandwidth: Some(1.0), clock };
        // The seconds of a run are the calls of the clock from its begin to its end.
        for (kind, depth, batch, seconds, gaps) in [
            (Kind::Prefill, 0, 1, 1.0, 0),
            (Kind::Prefill, 3, 2, 1.0, 0),
            (Kind::FirstToken, 0, 1, 1.0, 0),
            (Kind::Decode, 0, 1, 4.0, 4),
            (Kind::Decode, 5, 1, 4.0, 4),
            (Kind::Decode, 5, 2, 4.0, 4),
            (Kind::EndToEnd, 0, 1, 4.0, 0),
            (Kind::EndToEnd, 3, 2, 4.0, 0),
        ] {
            let test = Test::new(kind, 5, 4, depth, batch);
            let mut go = |run| {
                RUN.store(run, Relaxed);
                ControlFlow::Continue(())
            };
            let measured = block_on(measure(&mut engine, &test, &settings, &mut go)).unwrap().expect("not ended");
            let Measured { time, operators } = measured;
            assert_eq!(RUN.load(Relaxed), 3, "{test:?}");
            // The first call in the second run may still count as one in the first run.
            assert_eq!(time.samples[1..], [seconds; 2], "{test:?}");
            assert_eq!((time.token_samples.len(), operators.len()), (3 * gaps, 0), "{test:?}");
            let alone = kind == Kind::Decode && batch == 1;
            let bytes = alone.then(|| engine.explain().bytes_per_token as f64);
            assert_eq!((time.bytes_per_second, time.bandwidth_share), (bytes, bytes), "{test:?}");
        }
        // `go` ends it during the third run.
        let test = Test::new(Kind::Decode, 0, 4, 0, 1);
        let mut go = |run| if run == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
        assert_eq!(block_on(measure(&mut engine, &test, &settings, &mut go)).unwrap(), None);
        let mut refused = |test| block_on(measure(&mut engine, &test, &settings, &mut |_| ControlFlow::Continue(())));
        assert!(matches!(refused(Test::new(Kind::Load, 0, 0, 0, 1)), Err(Error::Parameter { .. })));
        assert!(matches!(refused(Test::new(Kind::Decode, 0, 4, 0, 3)), Err(Error::Parameter { .. })));
        assert!(matches!(refused(Test::new(Kind::Prefill, 17, 0, 0, 1)), Err(Error::Prompt { .. })));
    }
}
