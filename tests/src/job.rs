//! One example of an operator: its inputs, its twin's results, and the check of a device against them.

use crate::compare::{POISON, compare_words, disturb};
use crate::devices::Device;
use crate::random::Random;
use crate::tolerance::tolerance;
use nemoflash::batch::Size;
use nemoflash::kernel::{Access, Kernel};
use nemoflash::ops::Case;
use nemoflash::plan::Plan;
use nemoflash::{Buf, Error, Exec};

/// Poisoned words after the end of each buffer.
const CANARY: u64 = 64;

/// An example with the result of its CPU twin.
#[derive(Debug)]
pub struct Job {
    /// The operator's kernel.
    pub kernel: Kernel,
    /// The operator with its numbers, for messages.
    pub name: String,
    plan: Plan,
    size: Size,
    lens: Vec<u64>,
    inputs: Vec<Vec<u32>>,
    want: Vec<Vec<u32>>,
}

impl Job {
    /// Makes inputs and runs the twin.
    ///
    /// # Errors
    /// The twin fails, or wrote where it must not.
    pub fn new(case: Case, seed: u64) -> Result<Job, String> {
        let kernel = case.op.kernel();
        let segments: Vec<_> = case.batch.segments.iter().map(|s| (s.slot, s.rows)).collect();
        let rows = if segments.len() > 4 { format!("{} segments", segments.len()) } else { format!("{segments:?}") };
        let name = format!("{:?} {rows}", case.op);
        let lens = case.op.lens();
        let inputs = (0..lens.len()).map(|bind| input(&case, bind, seed)).collect();
        let (size, mut plan) = (case.batch.size(), Plan::default());
        let mut cpu = Exec::cpu();
        let bufs = alloc(&mut cpu, &kernel, &lens).map_err(|e| format!("{name}: {e}"))?;
        plan.push(case.op, &bufs);
        let mut job = Job { kernel, name, plan, size, lens, inputs, want: vec![] };
        job.want =
            job.run(&mut cpu, &bufs, &job.inputs.clone()).map_err(|e| format!("{} on the CPU: {e}", job.name))?;
        for (i, want) in job.want.clone().iter().enumerate() {
            job.compare(i, "twin", want)?;
        }
        Ok(job)
    }

    /// Runs the kernel and holds everything it writes against the twin. Returns the largest RMS ratio.
    ///
    /// # Errors
    /// What differs, or the device's error; also if the comparison would not have found a single wrong value.
    pub fn check(&mut self, device: &mut Device) -> Result<f64, String> {
        let got = self.device(device, &self.inputs.clone())?;
        let mut worst = 0.0f64;
        for (i, got) in got.iter().enumerate() {
            worst = worst.max(self.compare(i, &device.label, got)?);
            if self.written(i) {
                let mut wrong = self.want[i].clone();
                disturb(self.kernel.binds[i].elem, self.lens[i], &mut wrong);
                if self.compare(i, "negative control", &wrong).is_ok() {
                    return Err(format!("{}: {}: a wrong value passes", self.name, self.kernel.binds[i].name));
                }
            }
        }
        Ok(worst)
    }

    /// The bindings that the kernel reads and whose change alone the comparison finds.
    ///
    /// # Errors
    /// The device's.
    pub fn sensitive(&mut self, case: &Case, device: &mut Device, seed: u64) -> Result<Vec<&'static str>, String> {
        let mut found = vec![];
        for (i, bind) in self.kernel.binds.iter().enumerate().filter(|(_, bind)| bind.access != Access::Write) {
            let mut inputs = self.inputs.clone();
            inputs[i] = input(case, i, seed);
            let got = self.device(device, &inputs)?;
            if got.iter().enumerate().any(|(i, got)| self.compare(i, "disturbed", got).is_err()) {
                found.push(bind.name);
            }
        }
        Ok(found)
    }

    fn device(&mut self, device: &mut Device, inputs: &[Vec<u32>]) -> Result<Vec<Vec<u32>>, String> {
        let fail = |e: Error| format!("{} on {}: {e}", self.name, device.label);
        let bufs = alloc(&mut device.exec, &self.kernel, &self.lens).map_err(fail)?;
        let got = self.run(&mut device.exec, &bufs, inputs);
        bufs.iter().for_each(|buf| device.exec.free(*buf));
        got.map_err(|e| format!("{} on {}: {e}", self.name, device.label))
    }

    fn run(&mut self, exec: &mut Exec, bufs: &[Buf], inputs: &[Vec<u32>]) -> Result<Vec<Vec<u32>>, Error> {
        for (buf, words) in bufs.iter().zip(inputs) {
            exec.write(*buf, 0, words);
        }
        self.plan.steps[0].bufs = bufs.to_vec();
        pollster::block_on(async {
            exec.prepare(&mut self.plan).await?;
            let ticket = exec.submit(&[(&self.plan, self.size)], None)?;
            exec.collect(ticket).await?;
            let mut words = vec![];
            for (buf, bind) in bufs.iter().zip(self.kernel.binds) {
                words.push(if bind.access == Access::Read { vec![] } else { exec.read(*buf).await? });
            }
            Ok(words)
        })
    }

    fn written(&self, bind: usize) -> bool {
        self.kernel.binds[bind].access != Access::Read && self.lens[bind] > 0
    }

    fn compare(&self, i: usize, who: &str, got: &[u32]) -> Result<f64, String> {
        if !self.written(i) {
            return Ok(0.0);
        }
        let bind = self.kernel.binds[i];
        let name = format!("{} {} on {who}", self.name, bind.name);
        compare_words(&name, bind.elem, self.lens[i], &self.want[i], got, tolerance(self.kernel.name, bind.elem))
    }
}

/// Buffers for an operator's bindings, each with its canary.
fn alloc(exec: &mut Exec, kernel: &Kernel, lens: &[u64]) -> Result<Vec<Buf>, Error> {
    let with_canary = |(bind, len): (&nemoflash::kernel::Bind, &u64)| {
        let words = (bind.elem.words(*len) + CANARY).next_multiple_of(4);
        pollster::block_on(exec.alloc(bind.name, words * bind.elem.per_word(), bind.elem))
    };
    kernel.binds.iter().zip(lens).map(with_canary).collect()
}

/// The words of a binding and its canary: the batch, what the operator asks for, poison for results, and
/// normal numbers for the rest.
fn input(case: &Case, bind: usize, seed: u64) -> Vec<u32> {
    let mut random = Random::new(seed << 8 | bind as u64);
    let (len, spec) = (case.op.lens()[bind], case.op.kernel().binds[bind]);
    let words = spec.elem.words(len) as usize;
    let mut list = if spec.name == "batch" {
        case.batch.words()
    } else if let Some(words) = case.op.input(bind, &mut || random.uniform()) {
        words
    } else if spec.access == Access::Write {
        vec![POISON; words]
    } else {
        random.words(spec.elem, len)
    };
    assert_eq!(list.len(), words, "{:?}: input of {}", case.op, spec.name);
    list.resize((words + CANARY as usize).next_multiple_of(4), POISON);
    list
}

/// [`Job::new`] and [`Job::check`] in one.
///
/// # Errors
/// As these.
pub fn check_case(device: &mut Device, case: Case) -> Result<f64, String> {
    Job::new(case, 1)?.check(device)
}
