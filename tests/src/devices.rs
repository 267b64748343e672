//! Every device of the machine, with all of its features and with fewer.

use crate::spoil::spoil;
use nemoflash::{AdapterInfo, Caps, Deny, Error, Exec, Gpu, GpuOptions};
use std::fmt;
use std::io::Write;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// How much of an adapter is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// All features, for adapters with cooperative matrices. Products of many rows use these, which round to f16.
    Coopmat,
    /// All features except cooperative matrices, so that arithmetic is exact.
    Full,
    /// The adapter's limits, but neither f16 nor subgroups.
    Plain,
    /// Neither f16 nor subgroups, and only the limits that every WebGPU device has.
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
    /// Its name, for messages.
    pub label: String,
    /// How it is used.
    pub mode: Mode,
    /// The device itself.
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

    /// Opens the device. Kernels on it begin by filling their workgroup memory with NaN (see `spoil`).
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

/// A lock that is held while a driver is opened. NVIDIA's driver (580.159.04) crashed when several test threads opened it at
/// once.
fn one_at_a_time() -> MutexGuard<'static, ()> {
    static OPENING: Mutex<()> = Mutex::new(());
    OPENING.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Device {
    /// The device's capabilities as a short text.
    pub fn summary(&self) -> String {
        let Caps { f16, subgroup, coopmat, max_binding, .. } = self.exec.caps();
        format!(
            "{}: f16 {f16}, subgroup {subgroup:?}, coopmat {coopmat}, bindings of {} MiB",
            self.label,
            max_binding >> 20
        )
    }
}

/// Every adapter in every mode. If the machine has no adapter, a line says that `suite` was not run.
///
/// # Panics
/// If there is no adapter and the variable `CI` is set.
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

/// The targets in one of these modes. If there are adapters but none has such a mode, a line says that `suite` was not run: a
/// check that ran on no device has not passed.
///
/// # Panics
/// As [`targets`].
pub fn targets_in(suite: &str, modes: &[Mode]) -> Vec<Target> {
    let all = targets(suite);
    let adapters = !all.is_empty();
    let some: Vec<Target> = all.into_iter().filter(|target| modes.contains(&target.mode)).collect();
    if some.is_empty() && adapters {
        // No machine has every mode, so this is not a failure even if `CI` is set.
        loud(&format!("not run: {suite}: no adapter here has the mode {modes:?}"));
    }
    some
}

/// Prints on stderr, even if the test runner captures output, that something could not be tested here.
///
/// # Panics
/// If the variable `CI` is set, because then everything must run.
pub fn not_run(suite: &str, why: &str) {
    loud(&format!("not run: {suite}: {why}"));
    assert!(std::env::var_os("CI").is_none(), "{suite}: not run ({why}), and CI is set");
}

/// Prints a line on stderr that the test runner does not hide.
pub fn loud(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}
