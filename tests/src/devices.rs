//! Every device of the machine, with everything it can do and with everything denied.

use crate::spoil::spoil;
use nemoflash::{AdapterInfo, Caps, Deny, Error, Exec, Gpu, GpuOptions};
use std::fmt;
use std::io::Write;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// How much of an adapter is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Everything, and products of many rows by cooperative matrices, which round to f16: where the adapter has them.
    Coopmat,
    /// Everything else it offers: exact arithmetic.
    Full,
    /// Its limits, but neither f16 nor subgroups.
    Plain,
    /// Neither of these, and the limits that every WebGPU device has.
    Floor,
}

impl Mode {
    /// All of them.
    pub const ALL: [Mode; 4] = [Mode::Coopmat, Mode::Full, Mode::Plain, Mode::Floor];
}

/// An adapter in a mode: a device that can be opened.
#[derive(Clone, Debug)]
pub struct Target {
    /// The adapter.
    pub adapter: AdapterInfo,
    /// How it is used.
    pub mode: Mode,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.adapter.name.split(" (").next().unwrap_or_default();
        write!(f, "{name}/{}/{:?}", self.adapter.backend, self.mode)
    }
}

/// Devices that were given back, with what they have compiled.
static IDLE: Mutex<Vec<(usize, Mode, Exec)>> = Mutex::new(vec![]);

/// An open device.
#[derive(Debug)]
pub struct Device {
    /// What it is.
    pub label: String,
    /// How it is used.
    pub mode: Mode,
    /// Itself.
    pub exec: Exec,
}

impl Target {
    /// A device that is to be [given back](Target::give_back): one that another test gave back, or a new one. Software adapters
    /// spend most of a test on compiling kernels, and such a device has many of them compiled.
    ///
    /// # Errors
    /// As [`Target::open`].
    pub fn lend(&self) -> Result<Device, Error> {
        let mut idle = IDLE.lock().unwrap_or_else(PoisonError::into_inner);
        let place = idle.iter().position(|(index, mode, _)| (*index, *mode) == (self.adapter.index, self.mode));
        let found = place.map(|place| idle.swap_remove(place));
        drop(idle);
        match found {
            Some((_, mode, exec)) => Ok(Device { label: self.to_string(), mode, exec }),
            None => self.open(),
        }
    }

    /// Gives a device of this target back. A test that fails does not.
    pub fn give_back(&self, exec: Exec) {
        let mut idle = IDLE.lock().unwrap_or_else(PoisonError::into_inner);
        idle.push((self.adapter.index, self.mode, exec));
    }

    /// Opens the device; on it, workgroup memory begins as NaN.
    ///
    /// # Errors
    /// As [`Gpu::new`].
    pub fn open(&self) -> Result<Device, Error> {
        let denied = matches!(self.mode, Mode::Plain | Mode::Floor);
        let options = GpuOptions {
            backend: None,
            adapter: Some(self.adapter.index.to_string()),
            deny: Deny { f16: denied, subgroups: denied, coopmat: self.mode != Mode::Coopmat },
            floor: self.mode == Mode::Floor,
            rewrite: Some(spoil),
            ..Default::default()
        };
        let _one = one_at_a_time();
        let gpu = pollster::block_on(Gpu::new(&options))?;
        Ok(Device { label: self.to_string(), mode: self.mode, exec: Exec::Gpu(Box::new(gpu)) })
    }
}

/// Held while a driver is opened. Test threads that opened NVIDIA's driver (580.159.04) at once made it crash.
fn one_at_a_time() -> MutexGuard<'static, ()> {
    static OPENING: Mutex<()> = Mutex::new(());
    OPENING.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Device {
    /// The device's capabilities in a few words.
    pub fn summary(&self) -> String {
        let Caps { f16, subgroup, coopmat, max_binding, .. } = self.exec.caps();
        format!(
            "{}: f16 {f16}, subgroup {subgroup:?}, coopmat {coopmat}, bindings of {} MiB",
            self.label,
            max_binding >> 20
        )
    }
}

/// Every adapter in every mode. Where the machine has no adapter, `suite` says that it was not run, and
/// fails if the variable `CI` is set.
///
/// # Panics
/// Without an adapter under `CI`.
pub fn targets(suite: &str) -> Vec<Target> {
    let adapters = {
        let _one = one_at_a_time();
        pollster::block_on(Gpu::adapters(None)).unwrap_or_default()
    };
    if adapters.is_empty() {
        not_run(suite, "no adapter");
    }
    let all = adapters.into_iter().flat_map(|a| Mode::ALL.map(|mode| Target { adapter: a.clone(), mode }));
    let all = all.filter(|target| target.mode != Mode::Coopmat || target.adapter.coopmat);
    match std::env::var("NEMOFLASH_DEVICES") {
        Ok(text) => {
            let some: Vec<Target> = all.filter(|target| target.to_string().contains(&text)).collect();
            loud(&format!("{suite}: only the {} devices that match NEMOFLASH_DEVICES={text}", some.len()));
            assert!(!some.is_empty(), "no device matches");
            some
        }
        Err(_) => all.collect(),
    }
}

/// The targets in one of these modes. Where adapters have none of them, that is told and counts as not run: a check that ran on
/// nothing is not a pass.
///
/// # Panics
/// As [`targets`].
pub fn targets_in(suite: &str, modes: &[Mode]) -> Vec<Target> {
    let all = targets(suite);
    let adapters = !all.is_empty();
    let some: Vec<Target> = all.into_iter().filter(|target| modes.contains(&target.mode)).collect();
    if some.is_empty() && adapters {
        // No machine has every mode, so this is no failure under `CI`.
        loud(&format!("not run: {suite}: no adapter here has the mode {modes:?}"));
    }
    some
}

/// Says on stderr, past the capture of test output, that something could not be tested here.
///
/// # Panics
/// If the variable `CI` is set: there, everything must run.
pub fn not_run(suite: &str, why: &str) {
    loud(&format!("not run: {suite}: {why}"));
    assert!(std::env::var_os("CI").is_none(), "{suite}: not run ({why}), and CI is set");
}

/// A line on stderr that the test runner does not hide.
pub fn loud(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}
