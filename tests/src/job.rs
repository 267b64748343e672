//! Compares one example of an operator, on a device of the machine, with its CPU twin.

use crate::devices::Device;
use nemoflash::check::{Check, Outcome, input};
use nemoflash::kernel::{Access, Kernel};
use nemoflash::ops::Case;
use pollster::block_on;

/// An example with the result of its CPU twin.
#[derive(Debug)]
pub struct Job {
    /// The operator's kernel.
    pub kernel: Kernel,
    check: Check,
}

impl Job {
    /// Makes inputs and runs the CPU twin.
    ///
    /// # Errors
    /// If the twin fails or writes where it must not, or if the comparison would not find a single wrong value.
    pub fn new(case: Case, seed: u64) -> Result<Job, String> {
        let name = format!("{:?}", case.op);
        let check = block_on(Check::new(case, seed)).map_err(|e| format!("{name} on the CPU: {e}"))?;
        passed("the CPU", check.control())?;
        Ok(Job { kernel: check.kernel, check })
    }

    /// Runs the kernel and compares everything that it writes with the twin. Returns the largest RMS ratio.
    ///
    /// # Errors
    /// Says what differs, or is the device's error.
    pub fn check(&mut self, device: &mut Device) -> Result<f64, String> {
        let outcome = block_on(self.check.run(&mut device.exec));
        let Outcome { ratio, faults, .. } =
            outcome.map_err(|e| format!("{} on {}: {e}", self.check.name, device.label))?;
        passed(&device.label, faults).map(|()| ratio)
    }

    /// The bindings that the kernel reads and for which the comparison finds a change of this binding alone.
    ///
    /// # Errors
    /// The device's.
    pub fn sensitive(&mut self, case: &Case, device: &mut Device, seed: u64) -> Result<Vec<&'static str>, String> {
        let mut found = vec![];
        for (i, bind) in self.kernel.binds.iter().enumerate().filter(|(_, bind)| bind.access != Access::Write) {
            let mut inputs = self.check.inputs().to_vec();
            inputs[i] = input(case, i, seed);
            let outcome = block_on(self.check.run_on(&mut device.exec, &inputs));
            let outcome = outcome.map_err(|e| format!("{} on {}: {e}", self.check.name, device.label))?;
            if !outcome.faults.is_empty() {
                found.push(bind.name);
            }
        }
        Ok(found)
    }
}

fn passed(place: &str, faults: Vec<String>) -> Result<(), String> {
    if faults.is_empty() { Ok(()) } else { Err(format!("on {place}: {}", faults.join("; "))) }
}

/// Calls [`Job::new`] and [`Job::check`].
///
/// # Errors
/// Those of both.
pub fn check_case(device: &mut Device, case: Case) -> Result<f64, String> {
    Job::new(case, 1)?.check(device)
}
