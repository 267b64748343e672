//! Where stacks are measured: one device, on which one engine after the other is made and given back.

use crate::args::{Common, Device as Place};
use crate::bench::gate;
use crate::doctor::models;
use crate::open::{self, seconds};
use crate::terminal;
use anyhow::Result;
use nemoflash::{Engine, EngineOptions, Error, Exec, Synthetic};
use nemoflash_bench::lookup::{Shape, Stack};
use nemoflash_bench::report::{Device, Gate, Kind, Test, Time};
use nemoflash_bench::{Settings, Turns, side_by_side};
use std::ops::ControlFlow;

/// A device, and whether it computes what it should.
pub struct Lab<'a> {
    common: Common,
    /// None while an engine has it, and after one that failed.
    exec: Option<Exec>,
    /// For people.
    pub adapter: String,
    pub device: Device,
    pub gate: Gate,
    /// What makes all of its numbers less sure.
    pub warnings: Vec<String>,
    /// Whether a GPU in software or the CPU computes: far smaller stacks are enough.
    pub small: bool,
    stopped: &'a dyn Fn() -> bool,
}

/// How stacks are measured.
#[derive(Clone, Copy, Debug)]
pub struct Protocol {
    pub shape: Shape,
    /// Sequences that an engine holds.
    pub slots: u32,
    /// Tokens that each of them has room for.
    pub context: u32,
    /// Tokens decoded in a run.
    pub tokens: u32,
    pub runs: u32,
}

impl Protocol {
    /// Decode of so many sequences behind so many tokens.
    pub fn test(&self, batch: u32, depth: u32) -> Test {
        Test::new(Kind::Decode, 0, self.tokens, depth, batch)
    }
}

/// What came out for a stack.
#[derive(Clone, Debug, PartialEq)]
pub struct Timed {
    /// Seconds of a step in each run: of each selection of each of the turns.
    pub samples: Vec<Vec<Vec<f64>>>,
    /// Bytes of each block's weights,
    pub blocks: Vec<u64>,
    /// and of the ends.
    pub ends: u64,
}

impl<'a> Lab<'a> {
    /// Opens the device that the options name. The built-in model must give its golden tokens there, unless that is skipped.
    ///
    /// # Errors
    /// If there is no such device.
    pub async fn open(common: &Common, skip_gate: bool, stopped: &'a dyn Fn() -> bool) -> Result<Lab<'a>> {
        let (mut exec, adapter) = open::device(common).await?;
        let mut common = common.clone();
        let cpu = matches!(exec, Exec::Cpu(_));
        if cpu {
            // Said once, if it was not asked for.
            common.device = Some(Place::Cpu);
        }
        let device = Device::new(&exec, common.gpu().deny);
        let small = cpu || exec.caps().software;
        let (gate, mut warnings) = match skip_gate {
            true => (Gate::NotRun, vec![]),
            false => {
                let found = gate(&models::fables(exec, common.kv()).await);
                (exec, _) = open::device(&common).await?;
                found
            }
        };
        if cfg!(debug_assertions) {
            warnings.push("this is a debug build: measure with `cargo run --release`".into());
        }
        Ok(Lab { common, exec: Some(exec), adapter, device, gate, warnings, small, stopped })
    }

    /// Whether Ctrl-C was pressed.
    pub fn stopped(&self) -> bool {
        (self.stopped)()
    }

    /// Decodes with a stack of random weights. Nothing if Ctrl-C ended it.
    ///
    /// # Errors
    /// The outer one if the device cannot be opened any more; the inner one is why this stack cannot be measured on it.
    pub async fn time(
        &mut self,
        stack: &Stack,
        protocol: &Protocol,
        turns: &[Turns],
    ) -> Result<Result<Option<Timed>, Error>> {
        terminal::note_if_watched(&format!("{}, hidden size {}, on {} ...", stack.name, stack.hidden, self.adapter));
        let exec = match self.exec.take() {
            Some(exec) => exec,
            None => open::device(&self.common).await?.0,
        };
        let (engine, timed) = match self.engine(exec, stack, protocol).await {
            Ok(mut engine) => {
                let timed = self.take(&mut engine, protocol, turns).await;
                (engine, timed)
            }
            Err(error) => return Ok(Err(error)),
        };
        // A device that failed answers nothing any more: the next stack gets another one.
        if !matches!(timed, Err(Error::Device { .. })) {
            self.exec = Some(engine.into_exec());
        }
        Ok(timed)
    }

    async fn engine(&self, exec: Exec, stack: &Stack, protocol: &Protocol) -> Result<Engine, Error> {
        let config = protocol.shape.config(stack.hidden, &stack.blocks);
        let loaded = Synthetic { seed: 0 }.model(exec, config.as_bytes(), self.common.load()).await?;
        let Protocol { slots, context, .. } = *protocol;
        let options =
            EngineOptions { slots, context, kv: self.common.kv(), clock: Some(seconds), ..Default::default() };
        let mut engine = Engine::new(loaded, options).await?;
        engine.wait().await?;
        Ok(engine)
    }

    async fn take(&self, engine: &mut Engine, protocol: &Protocol, turns: &[Turns]) -> Result<Option<Timed>, Error> {
        let Protocol { tokens, runs, .. } = *protocol;
        let settings = Settings { runs, warm_up: 1, profile: 0, steady: None, bandwidth: None, clock: seconds };
        let mut go = |_| if self.stopped() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
        let Some(times) = side_by_side(engine, turns, &settings, &mut go).await? else { return Ok(None) };
        let steps = |time: Time| time.samples.iter().map(|seconds| seconds / f64::from(tokens)).collect();
        let samples = times.into_iter().map(|times| times.into_iter().map(steps).collect()).collect();
        let blocks: Vec<u64> = engine.model().layer_bytes().collect();
        let ends = engine.model().bytes() - blocks.iter().sum::<u64>();
        Ok(Some(Timed { samples, blocks, ends }))
    }
}
