//! Compares a kernel with its CPU twin: makes an example's inputs, runs both, and compares the results. The test
//! suites and `nemoflash doctor` share it.

mod compare;
mod random;
mod tolerance;

pub use compare::{POISON, compare_words, rms_ratio};
pub use random::Random;
pub use tolerance::tolerance;

use crate::Result;
use crate::batch::Size;
use crate::buf::Buf;
use crate::exec::Exec;
use crate::kernel::{Access, Kernel, coop};
use crate::ops::Case;
use crate::plan::Plan;
use compare::disturb;
use std::collections::HashSet;

/// Number of poisoned words after the end of each buffer.
const CANARY: u64 = 64;

/// An example of an operator with the result of its CPU twin.
#[derive(Debug)]
pub struct Check {
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

/// What the comparison of one run found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    /// The RMS ratio that came closest to its tolerance, of those that passed.
    pub ratio: f64,
    /// The tolerance of that ratio. 0 if all results are integers, which must be equal.
    pub tolerance: f64,
    /// What differs from the CPU twin, one line for each binding. Empty if the kernel passes.
    pub faults: Vec<String>,
}

impl Outcome {
    /// Combines results: the ratio that comes closest to its tolerance, and all faults.
    pub fn add(&mut self, other: Outcome) {
        if self.tolerance == 0.0 || other.ratio * self.tolerance > self.ratio * other.tolerance {
            (self.ratio, self.tolerance) = (other.ratio, other.tolerance);
        }
        self.faults.extend(other.faults);
    }
}

impl Check {
    /// Makes inputs from a seed and runs the CPU twin.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`](crate::Error::OutOfMemory).
    pub async fn new(case: Case, seed: u64) -> Result<Check> {
        let kernel = case.op.kernel();
        let segments: Vec<_> = case.batch.segments.iter().map(|s| (s.slot, s.rows)).collect();
        let rows = if segments.len() > 4 { format!("{} segments", segments.len()) } else { format!("{segments:?}") };
        let name = format!("{:?} {rows}", case.op);
        let lens = case.op.lens();
        let inputs: Vec<_> = (0..lens.len()).map(|bind| input(&case, bind, seed)).collect();
        let (size, mut plan) = (case.batch.size(), Plan::default());
        let mut cpu = Exec::cpu();
        let bufs = alloc(&mut cpu, &kernel, &lens).await?;
        plan.push(case.op, &bufs);
        let mut check = Check { kernel, name, plan, size, lens, inputs: vec![], want: vec![] };
        check.want = check.results(&mut cpu, &bufs, &inputs).await?;
        check.inputs = inputs;
        Ok(check)
    }

    /// Runs the kernel and compares everything that it writes with the CPU twin: numbers by their RMS ratio, integers
    /// exactly. The kernel must write exactly the words that the twin writes.
    ///
    /// # Errors
    /// As [`Exec::alloc`], [`Exec::prepare`] and [`Exec::submit`]. A wrong result is not an error; it is a fault in the
    /// [`Outcome`].
    pub async fn run(&mut self, exec: &mut Exec) -> Result<Outcome> {
        let inputs = std::mem::take(&mut self.inputs);
        let outcome = self.run_on(exec, &inputs).await;
        self.inputs = inputs;
        outcome
    }

    /// [`Check::run`] with other inputs: the words of each binding.
    ///
    /// # Errors
    /// As [`Check::run`].
    pub async fn run_on(&mut self, exec: &mut Exec, inputs: &[Vec<u32>]) -> Result<Outcome> {
        let bufs = alloc(exec, &self.kernel, &self.lens).await?;
        let got = self.results(exec, &bufs, inputs).await;
        bufs.iter().for_each(|buf| exec.free(*buf));
        let got = got?;
        let mut outcome = Outcome::default();
        let coop = coop(&self.plan.steps[0].op.consts(exec.caps()));
        for (i, got) in got.iter().enumerate().filter(|(i, _)| self.written(*i)) {
            let tolerance = tolerance(self.kernel.name, self.kernel.binds[i].elem, coop);
            outcome.add(match self.compare(i, &self.want[i], got, tolerance) {
                Ok(ratio) => Outcome { ratio, tolerance, faults: vec![] },
                Err(fault) => Outcome { ratio: 0.0, tolerance, faults: vec![fault] },
            });
        }
        Ok(outcome)
    }

    /// Negative control of the comparison. Returns faults that it finds in the twin's own result, and bindings in which
    /// a single wrong value would pass.
    pub fn control(&self) -> Vec<String> {
        let mut faults = vec![];
        for (i, want) in self.want.iter().enumerate().filter(|(i, _)| self.written(*i)) {
            let bind = self.kernel.binds[i];
            let mut wrong = want.clone();
            disturb(bind.elem, self.lens[i], &mut wrong);
            // Every tolerance that a device may have.
            for coop in [false, true] {
                let tolerance = tolerance(self.kernel.name, bind.elem, coop);
                faults.extend(self.compare(i, want, want, tolerance).err());
                if self.compare(i, want, &wrong, tolerance).is_ok() {
                    faults.push(format!("{} {}: a wrong value passes {tolerance:.0e}", self.name, bind.name));
                }
            }
        }
        faults
    }

    /// The words of each binding before a run, with the poisoned words after its end.
    pub fn inputs(&self) -> &[Vec<u32>] {
        &self.inputs
    }

    /// The words of every binding that the kernel writes, after a run. Empty for the other bindings.
    async fn results(&mut self, exec: &mut Exec, bufs: &[Buf], inputs: &[Vec<u32>]) -> Result<Vec<Vec<u32>>> {
        for (buf, words) in bufs.iter().zip(inputs) {
            exec.write(*buf, 0, words);
        }
        self.plan.steps[0].bufs = bufs.to_vec();
        exec.prepare(&mut self.plan).await?;
        let ticket = exec.submit(&[(&self.plan, self.size)], None)?;
        exec.collect(ticket).await?;
        let mut words = vec![];
        for (buf, bind) in bufs.iter().zip(self.kernel.binds) {
            words.push(if bind.access == Access::Read { vec![] } else { exec.read(*buf).await? });
        }
        Ok(words)
    }

    fn written(&self, bind: usize) -> bool {
        self.kernel.binds[bind].access != Access::Read && self.lens[bind] > 0
    }

    fn compare(&self, i: usize, want: &[u32], got: &[u32], tolerance: f64) -> Result<f64, String> {
        let bind = self.kernel.binds[i];
        let name = format!("{} {}", self.name, bind.name);
        compare_words(&name, bind.elem, self.lens[i], want, got, tolerance)
    }
}

/// Bytes that an example binds.
pub fn bytes(case: &Case) -> u64 {
    case.op.kernel().binds.iter().zip(case.op.lens()).map(|(bind, len)| bind.elem.words(len) * 4).sum()
}

/// Examples with their seeds, from small to large. The smallest example of each operator comes before all others, so
/// a check that ends early has still seen every operator.
pub fn by_size(mut cases: Vec<(u64, Case)>) -> Vec<(u64, Case)> {
    cases.sort_by_key(|(_, case)| bytes(case));
    let mut seen = HashSet::new();
    let (mut first, rest): (Vec<_>, Vec<_>) =
        cases.into_iter().partition(|(_, case)| seen.insert(case.op.kernel().name));
    first.extend(rest);
    first
}

/// Allocates buffers for an operator's bindings, each with poisoned words after its end.
async fn alloc(exec: &mut Exec, kernel: &Kernel, lens: &[u64]) -> Result<Vec<Buf>> {
    let mut bufs = vec![];
    for (bind, len) in kernel.binds.iter().zip(lens) {
        let words = (bind.elem.words(*len) + CANARY).next_multiple_of(4);
        match exec.alloc(bind.name, words * bind.elem.per_word(), bind.elem).await {
            Ok(buf) => bufs.push(buf),
            Err(error) => {
                bufs.into_iter().for_each(|buf| exec.free(buf));
                return Err(error);
            }
        }
    }
    Ok(bufs)
}

/// The words of a binding, with the poisoned words after its end. The binding has the batch, or what the operator asks
/// for, or poison if it is a result, or else normally distributed numbers.
pub fn input(case: &Case, bind: usize, seed: u64) -> Vec<u32> {
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
