//! Measures several devices, each in a process of its own. A driver that crashes costs only the row that was being
//! measured.

use super::options::Bench;
use super::row::{About, Told, unknown, unread};
use crate::args::{Backend, Common, Device as Place, Feature};
use crate::source::Source;
use crate::terminal;
use anyhow::{Context as _, Result};
use clap::ValueEnum as _;
use nemoflash_bench::report::{Device, Row, Test};
use serde_json::Value;
use std::ffi::OsString;
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

/// Time between two checks of whether Ctrl-C was pressed.
const LOOK: Duration = Duration::from_millis(50);

/// What one process measures.
#[derive(Debug)]
struct Run {
    common: Common,
    /// The device, as far as it is known before it is opened.
    device: Device,
    /// Whether to measure again without each optional feature that the device turns out to use.
    sweep: bool,
}

/// Measures all backends, or the device that the options name. With `--sweep`, measures each device again without each optional
/// feature that it has.
///
/// # Errors
/// If there is no such model, a process cannot be started, or a row cannot be written. Every other failure becomes a row.
pub fn measure(
    common: &Common,
    bench: &Bench,
    tests: &[Test],
    stopped: &dyn Fn() -> bool,
    write: &mut dyn FnMut(Row) -> Result<()>,
) -> Result<()> {
    // The model is downloaded here, because the other processes cannot ask the user to accept its licence.
    let model = unread(&Source::open(common)?.name, common);
    let about = |device: Device| About::new(device, model.clone());
    let mut runs = vec![];
    if bench.all_backends {
        for &backend in Backend::value_variants() {
            match adapters(backend) {
                Ok(devices) => runs.extend(devices.into_iter().enumerate().map(|(index, device)| {
                    let (backend, adapter) = (Some(backend), Some(index.to_string()));
                    Run { common: Common { backend, adapter, ..common.clone() }, device, sweep: bench.sweep }
                })),
                Err(why) => {
                    Told::new(tests, about(unknown("all", &name(backend)))).failed(&why, write)?;
                }
            }
        }
        let common = Common { device: Some(Place::Cpu), ..common.clone() };
        runs.push(Run { common, device: unknown("cpu", "cpu"), sweep: false });
    } else {
        let common = common.clone();
        runs.push(Run { common, device: unknown("unknown", "unknown"), sweep: bench.sweep });
    }
    runs.reverse();
    while let Some(Run { common, device, sweep }) = runs.pop() {
        if stopped() {
            break;
        }
        terminal::note_if_watched(&format!("{} ({}) ...", device.adapter, device.backend));
        let mut told = Told::new(tests, about(device));
        let end = child(&bench.arguments(&common), stopped, &mut |line| {
            let row: Row = serde_json::from_str(line).context("a line of the process that measures")?;
            told.hear(&row);
            write(row)
        })?;
        if let (Err(why), false) = (end, stopped()) {
            told.failed(&why, write)?;
        }
        let device = told.about.device;
        let had = [
            (Feature::Coopmat, device.coopmat),
            (Feature::Subgroups, device.subgroup.is_some()),
            (Feature::F16, device.f16),
        ];
        // `runs` is a stack: the device's sweep is measured before the next device.
        for (feature, _) in had.into_iter().filter(|(_, had)| sweep && *had) {
            let deny = [&common.deny[..], &[feature]].concat();
            runs.push(Run { common: Common { deny, ..common.clone() }, device: device.clone(), sweep: false });
        }
    }
    Ok(())
}

fn name(backend: Backend) -> String {
    backend.to_possible_value().map_or(String::new(), |value| value.get_name().to_owned())
}

/// A command that starts this program again.
fn again() -> Result<Command> {
    let program = std::env::current_exe().context("cannot find this program's own file to start it again")?;
    let mut command = Command::new(program);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    Ok(command)
}

/// The adapters of a backend, in the order of their indices. Another process lists them, because a driver may crash even then.
fn adapters(backend: Backend) -> Result<Vec<Device>, String> {
    let arguments = ["devices", "--json", "--backend", &name(backend)];
    let output = again().map_err(|error| format!("{error:#}"))?.args(arguments).output();
    let output = output.map_err(|error| format!("cannot look for adapters: {error}"))?;
    let list: Option<Value> = serde_json::from_slice(&output.stdout).ok();
    let (true, Some(list)) = (output.status.success(), list.as_ref().and_then(|all| all["adapters"].as_array())) else {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("looking for its adapters ended by {}: {}", output.status, said.trim()));
    };
    let text = |adapter: &Value, key: &str| adapter[key].as_str().unwrap_or_default().to_owned();
    let device = |adapter: &Value| Device {
        kind: text(adapter, "kind"),
        driver: text(adapter, "driver"),
        ..unknown(&text(adapter, "name"), &text(adapter, "backend"))
    };
    Ok(list.iter().map(device).collect())
}

/// Runs this program and passes each line of its stdout to `on_line`. Its stderr goes to our stderr. The inner error says how
/// the process failed. Ctrl-C ends the process.
///
/// # Errors
/// If the process cannot be started, and those of `on_line`.
fn child(
    arguments: &[OsString],
    stopped: &dyn Fn() -> bool,
    on_line: &mut dyn FnMut(&str) -> Result<()>,
) -> Result<Result<(), String>> {
    let mut child = again()?.args(arguments).spawn().context("cannot start this program again")?;
    let (sender, receiver) = channel();
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let lines = thread::spawn(move || {
        let lines = out.into_iter().flat_map(|pipe| BufReader::new(pipe).lines()).map_while(Result::ok);
        lines.map(|line| sender.send(line)).all(|sent| sent.is_ok())
    });
    let words = thread::spawn(move || {
        let mut last = String::new();
        for line in err.into_iter().flat_map(|pipe| BufReader::new(pipe).lines()).map_while(Result::ok) {
            match line.strip_prefix("error: ") {
                // An error message will be in a row, so it is not printed.
                Some(error) => last = error.to_owned(),
                None => terminal::note(&line),
            }
        }
        last
    });
    let mut result = Ok(());
    loop {
        match receiver.recv_timeout(LOOK) {
            Ok(line) if result.is_ok() => result = on_line(&line),
            Ok(_) => {}
            Err(RecvTimeoutError::Timeout) if stopped() || result.is_err() => {
                // An error means that it has ended already.
                let _ = child.kill();
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    let status = child.wait().context("cannot wait for the process that measures")?;
    let (_, said) = (lines.join(), words.join().unwrap_or_default());
    result?;
    Ok(match (status.success(), said.is_empty()) {
        (true, _) => Ok(()),
        (false, false) => Err(said),
        (false, true) => {
            Err(format!("the process that measured it ended by {status}. Update the driver, or choose another backend"))
        }
    })
}
