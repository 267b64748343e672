//! Measures stacks on one device. Engines are made on it one after the other.

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

/// A device, with the result of its golden check.
pub struct Lab<'a> {
    common: Common,
    /// The device. None while an engine uses it, and after an engine failed.
    exec: Option<Exec>,
    /// Name of the device, to be shown.
    pub adapter: String,
    pub device: Device,
    pub gate: Gate,
    /// Warnings that hold for all results.
    pub warnings: Vec<String>,
    /// Whether the device is the CPU or a GPU in software. Then far smaller stacks are measured.
    pub small: bool,
    stopped: &'a dyn Fn() -> bool,
}

/// How stacks are measured.
#[derive(Clone, Copy, Debug)]
pub struct Protocol {
    pub shape: Shape,
    /// Number of sequences for which an engine has room.
    pub slots: u32,
    /// Number of tokens for which each sequence has room.
    pub context: u32,
    /// Number of tokens that a run decodes.
    pub tokens: u32,
    pub runs: u32,
}

impl Protocol {
    /// A test that decodes `batch` sequences behind `depth` tokens each.
    pub fn test(&self, batch: u32, depth: u32) -> Test {
        Test::new(Kind::Decode, 0, self.tokens, depth, batch)
    }
}

/// The measurements of a stack.
#[derive(Clone, Debug, PartialEq)]
pub struct Timed {
    /// Seconds of a step: `samples[turns][selection][run]`.
    pub samples: Vec<Vec<Vec<f64>>>,
    /// Bytes of the weights of each block.
    pub blocks: Vec<u64>,
    /// Bytes of the weights of the ends.
    pub ends: u64,
}

impl<'a> Lab<'a> {
    /// Opens the device that the options name, and makes the golden check on it unless `skip_gate` is set.
    ///
    /// # Errors
    /// If there is no such device.
    pub async fn open(common: &Common, skip_gate: bool, stopped: &'a dyn Fn() -> bool) -> Result<Lab<'a>> {
        let (mut exec, adapter) = open::device(common).await?;
        let mut common = common.clone();
        let cpu = matches!(exec, Exec::Cpu(_));
        if cpu {
            // The note that the CPU runs has been printed. With this it is not printed again.
            common.device = Some(Place::Cpu);
        }
        let device = Device::new(&exec, common.gpu().deny);
        let small = cpu || exec.caps().software;
        let (gate, mut warnings) = match skip_gate {
            true => (Gate::NotRun, vec![]),
            false => {
                let found = gate(&models::fables(exec, common.kv(), common.scan()).await);
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

    /// Measures decode with a stack of random weights. `None` if Ctrl-C was pressed.
    ///
    /// # Errors
    /// The outer error says that the device cannot be opened again. The inner error says why this stack cannot be measured.
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
        // A device that failed cannot be used again, so the next stack opens another one.
        if !matches!(timed, Err(Error::Device { .. })) {
            self.exec = Some(engine.into_exec());
        }
        Ok(timed)
    }

    async fn engine(&self, exec: Exec, stack: &Stack, protocol: &Protocol) -> Result<Engine, Error> {
        let config = protocol.shape.config(stack.hidden, &stack.blocks);
        let loaded = Synthetic { seed: 0 }.model(exec, config.as_bytes(), self.common.load()).await?;
        let Protocol { slots, context, .. } = *protocol;
        let options = EngineOptions {
            slots,
            context,
            kv: self.common.kv(),
            scan: self.common.scan(),
            clock: Some(seconds),
            ..Default::default()
        };
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
