//! Measures one device in this process.

use super::options::{Bench, Skip};
use super::row::{About, Told};
use crate::args::{Common, Device as Place};
use crate::doctor::{Item, Verdict, models};
use crate::open::{self, Opened, seconds};
use crate::{quiet, terminal};
use anyhow::Result;
use nemoflash::{Engine, Error, Exec, Gpu};
use nemoflash_bench::report::{Device, Gate, Kind, Model, Row, Test, Time};
use nemoflash_bench::{CONTEXT, Measured, Settings, compile, measure, memory_bytes_per_second, said};
use std::ops::ControlFlow;

/// A device that is ready to be measured, and how.
#[derive(Debug)]
pub struct Ready {
    pub common: Common,
    pub device: Device,
    /// Name of the device, to be printed.
    pub adapter: String,
    pub gate: Gate,
    /// Warnings that hold for all rows of the device.
    pub warnings: Vec<String>,
    pub settings: Settings,
}

/// Opens the device once, makes the golden check on it, and measures its memory bandwidth.
///
/// # Errors
/// If there is no such device.
pub async fn ready(common: &Common, bench: &Bench) -> Result<Ready> {
    let (mut exec, adapter) = open::device(common).await?;
    let mut common = common.clone();
    if matches!(exec, Exec::Cpu(_)) {
        // The note that the CPU runs has been printed. With this it is not printed again.
        common.device = Some(Place::Cpu);
    }
    let device = Device::new(&exec, common.gpu().deny);
    // Without memory for the two buffers of that measurement, rows have no share of the bandwidth.
    let bandwidth = memory_bytes_per_second(&mut exec, seconds).await.unwrap_or(None);
    let (gate, mut warnings) = match bench.skip.contains(&Skip::Gate) {
        true => (Gate::NotRun, vec![]),
        false => gate(&models::fables(exec, common.kv(), common.scan()).await),
    };
    if cfg!(debug_assertions) {
        warnings.push("this is a debug build: measure with `cargo run --release`".into());
    }
    let Bench { repetitions: runs, warm_up, profile, .. } = *bench;
    let settings = Settings { runs, warm_up, profile, steady: None, bandwidth, clock: seconds };
    Ok(Ready { common, device, adapter, gate, warnings, settings })
}

/// Runs the tests of the list and writes a row for each, until Ctrl-C.
///
/// # Errors
/// If the model or the device cannot be used, or a row cannot be written. If a test fails, its row says so.
pub async fn device(
    common: &Common,
    bench: &Bench,
    tests: &[Test],
    stopped: &dyn Fn() -> bool,
    write: &mut dyn FnMut(Row) -> Result<()>,
) -> Result<()> {
    let Ready { common, device, adapter, gate, warnings, settings } = ready(common, bench).await?;
    let (context, slots) = (context(&common, bench, tests), slots(tests));
    let mut opened = open::with_slots(&common, slots, context).await?;
    let model = Model::new(&opened.engine, &opened.name, common.arch.is_some());
    let mut go = || if stopped() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
    let said = match bench.skip.contains(&Skip::Gate) {
        true => vec![],
        false => match said(&mut opened.engine, &mut go).await? {
            Some(said) => said,
            None => return Ok(()),
        },
    };
    let about = About { gate, said, warnings, ..About::new(device, model) };
    let mut told = Told::new(tests, about.clone());
    for (index, test) in tests.iter().enumerate() {
        if stopped() {
            return Ok(());
        }
        crash(index, &about.device);
        terminal::note_if_watched(&format!("{} on {adapter} ...", test.name));
        let measured = match test.kind {
            // The CPU has no kernels to compile.
            Kind::Compile if matches!(opened.engine.exec(), Exec::Cpu(_)) => continue,
            Kind::Load => {
                // The device may lack memory for two models.
                drop(opened);
                let (last, samples) = load(&common, slots, context, &settings, stopped).await?;
                opened = last;
                Ok(samples.map(|samples| alone(test, samples)))
            }
            Kind::Compile => {
                let samples = kernels(&common, &opened.engine, &settings, stopped).await;
                samples.map(|samples| samples.map(|samples| alone(test, samples)))
            }
            _ => measure(&mut opened.engine, test, &settings, &mut |_| go()).await,
        };
        match measured {
            Ok(Some(Measured { time, operators })) => {
                let row = Row { operators, ..about.row(test, time) };
                told.hear(&row);
                write(row)?;
            }
            Ok(None) => return Ok(()),
            Err(error) => {
                if matches!(error, Error::Device { .. }) {
                    // The device is lost, so no further test can run.
                    return told.failed(&error.to_string(), write);
                }
                let row = about.failed(test, error.to_string());
                told.hear(&row);
                write(row)?;
            }
        }
    }
    Ok(())
}

/// Tokens of the longest sequence: of the tests, of `--context`, and of the fixed prompt that comes before the tests.
pub fn context(common: &Common, bench: &Bench, tests: &[Test]) -> Option<u32> {
    let before = (!bench.skip.contains(&Skip::Gate)).then_some(CONTEXT);
    let need = |test: &Test| [test.depth, test.prompt, test.tokens, 1].into_iter().fold(0, u32::saturating_add);
    tests.iter().map(need).chain(common.context).chain(before).max()
}

/// The largest batch size of the tests.
pub fn slots(tests: &[Test]) -> u32 {
    tests.iter().map(|test| test.batch).max().unwrap_or(1)
}

/// The result of a test that runs no steps of an engine.
fn alone(test: &Test, samples: Vec<f64>) -> Measured {
    Measured { time: Time::wall(test, samples, vec![]), operators: vec![] }
}

/// The result of the golden check, and a warning if it failed.
pub fn gate(items: &[Item]) -> (Gate, Vec<String>) {
    match items.iter().find(|item| item.result != Verdict::Pass) {
        None => (Gate::Passed, vec![]),
        Some(item) => {
            let why = format!(
                "the device computes wrong results ({}: {}), so its speed says nothing. Run `nemoflash \
                 doctor`",
                item.name, item.detail
            );
            (Gate::Failed, vec![why])
        }
    }
}

/// Loads the model several times. Returns the model that was loaded last, and the seconds of each load. The model had been
/// loaded once before this call, which counts as a warm-up.
async fn load(
    common: &Common,
    slots: u32,
    context: Option<u32>,
    settings: &Settings,
    stopped: &dyn Fn() -> bool,
) -> Result<(Opened, Option<Vec<f64>>)> {
    let mut samples = vec![];
    loop {
        let opened = open::with_slots(common, slots, context).await?;
        samples.push(opened.load.as_secs_f64());
        if stopped() {
            return Ok((opened, None));
        }
        // The load before this call is the first warm-up. Further warm-ups are loads of this loop that are not counted.
        if samples.len() as u32 >= settings.runs + settings.warm_up.max(1) - 1 {
            return Ok((opened, Some(samples.split_off(samples.len() - settings.runs as usize))));
        }
    }
}

/// Compiles an engine's kernels several times, each time on a fresh device. Returns the seconds of each time.
async fn kernels(
    common: &Common,
    engine: &Engine,
    settings: &Settings,
    stopped: &dyn Fn() -> bool,
) -> Result<Option<Vec<f64>>, Error> {
    let mut samples = vec![];
    let warm_up = settings.warm_up.max(1);
    for index in 0..warm_up + settings.runs {
        let mut gpu = quiet::during(common.verbose, Gpu::new(&common.gpu())).await?;
        let seconds = compile(&mut gpu, engine, settings.clock).await?;
        if stopped() {
            return Ok(None);
        }
        samples.extend((index >= warm_up).then_some(seconds));
    }
    Ok(Some(samples))
}

/// For the tests, in debug builds: ends the process before the second test, as a driver's crash would, if the environment
/// variable names this device's backend.
#[cfg(debug_assertions)]
fn crash(index: usize, device: &Device) {
    let wanted = std::env::var_os("NEMOFLASH_BENCH_CRASH").is_some_and(|name| name == *device.backend);
    if wanted && index == 1 {
        std::process::abort();
    }
}

#[cfg(not(debug_assertions))]
fn crash(_: usize, _: &Device) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_token_marks_the_rows() {
        let right = pollster::block_on(Item::of("fables: decode", async { Ok("32 tokens".into()) }));
        assert_eq!(gate(&[right]), (Gate::Passed, vec![]));
        for item in [Item::fail("fables: prefill", "token 3".into()), Item::not_run("fables: decode", "no model")] {
            let (name, (gate, warnings)) = (item.name.clone(), gate(&[item]));
            assert_eq!((gate, warnings.len()), (Gate::Failed, 1));
            assert!(warnings[0].contains(&name) && warnings[0].contains("nemoflash doctor"), "{warnings:?}");
        }
    }
}
