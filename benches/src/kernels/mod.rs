//! Times operators: warm-up by time, the median of several runs, and bytes per second.
//!
//! A run is one submission that dispatches the operator `repeats` times. Each dispatch waits for the previous one, and
//! a run is so long that the submission itself hardly counts. On an operator's example sizes all dispatches use the
//! same buffers, so small ones are read from caches: these numbers compare kernels and devices. In a model's sizes
//! ([`work`]) every dispatch has weights of its own, more than caches hold: these numbers add up to a step.

mod work;

pub use work::{Work, work};

use nemoflash::batch::{Batch, Size};
use nemoflash::kernel::Access;
use nemoflash::op::AnyOp;
use nemoflash::plan::Plan;
use nemoflash::{Buf, Clock, Elem, Error, Exec, Result};

/// How long to measure.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Seconds of warm-up before the first run of each example.
    pub warm_up: f64,
    /// The fewest seconds of one run.
    pub run: f64,
    /// Number of runs. The median of them counts.
    pub runs: usize,
}

impl Effort {
    /// Runs each example once, only to see that it works.
    pub const ONCE: Effort = Effort { warm_up: 0.0, run: 0.0, runs: 1 };
}

/// The time of one example.
#[derive(Clone, Debug, PartialEq)]
pub struct Timing {
    /// The kernel.
    pub kernel: &'static str,
    /// The operator with its numbers.
    pub op: String,
    /// Rows and segments of the step.
    pub size: Size,
    /// Dispatches of one run.
    pub repeats: usize,
    /// Seconds of one dispatch: the least, the median and the most of all runs.
    pub seconds: [f64; 3],
    /// Bytes that one dispatch moves at least.
    pub bytes: u64,
    /// Multiplications plus additions of one dispatch, for products of matrices.
    pub flops: Option<u64>,
}

impl Timing {
    /// Gigabytes per second at the median.
    pub fn gigabytes_per_second(&self) -> f64 {
        self.bytes as f64 / self.seconds[1] / 1e9
    }

    /// Multiplications plus additions per second at the median.
    pub fn flops_per_second(&self) -> Option<f64> {
        self.flops.map(|flops| flops as f64 / self.seconds[1])
    }
}

/// Times an operator. `ops` are copies of it with weights of their own, which take turns.
///
/// # Errors
/// As [`Exec::alloc`], [`Exec::prepare`] and [`Exec::submit`].
///
/// # Panics
/// If `ops` is empty.
pub async fn time(
    exec: &mut Exec,
    ops: Vec<Box<dyn AnyOp>>,
    batch: &Batch,
    effort: Effort,
    clock: Clock,
) -> Result<Timing> {
    let mut bufs = vec![];
    let result = run(exec, ops, batch, effort, clock, &mut bufs).await;
    bufs.into_iter().for_each(|buf| exec.free(buf));
    result
}

/// As [`time`]. Every buffer that it makes is added to `bufs`.
async fn run(
    exec: &mut Exec,
    ops: Vec<Box<dyn AnyOp>>,
    batch: &Batch,
    effort: Effort,
    clock: Clock,
    bufs: &mut Vec<Buf>,
) -> Result<Timing> {
    let (kernel, op, size, count) = (ops[0].kernel(), format!("{:?}", ops[0]), batch.size(), ops.len());
    let flops = ops[0].flops(size);
    let (mut plan, mut words) = (Plan::default(), vec![vec![]; kernel.binds.len()]);
    for (copy, op) in ops.into_iter().enumerate() {
        let mut bound: Vec<Buf> = bufs.get(..kernel.binds.len()).unwrap_or_default().to_vec();
        for (i, (bind, len)) in kernel.binds.iter().zip(op.lens()).enumerate() {
            if copy > 0 && bind.elem != Elem::Weights {
                continue;
            }
            let buf = exec.alloc(bind.name, len, bind.elem).await?;
            bufs.push(buf);
            if copy == 0 {
                bound.push(buf);
                words[i] = if bind.access == Access::Write { vec![] } else { input(&*op, batch, i, buf) };
            }
            exec.write(buf, 0, &words[i]);
            bound[i] = buf;
        }
        plan.push(op, &bound);
    }
    drop(words);
    exec.prepare(&mut plan).await?;
    let bytes = plan.bytes(size) / count as u64;
    let mut run = async |repeats: usize| {
        let start = clock();
        let ticket = exec.submit(&vec![(&plan, size); repeats], None)?;
        exec.collect(ticket).await?;
        Ok::<_, Error>(clock() - start)
    };
    // Drivers do some work only in the first run. Then comes the warm-up, which also finds how many dispatches make a
    // run.
    let mut last = run(1).await?;
    let (start, mut repeats) = (clock(), 1);
    loop {
        if last < effort.run && repeats * count < 4096 {
            repeats *= 2;
        } else if clock() - start >= effort.warm_up {
            break;
        }
        last = run(repeats).await?;
    }
    let mut seconds = vec![];
    for _ in 0..effort.runs {
        seconds.push(run(repeats).await? / (repeats * count) as f64);
    }
    let (seconds, repeats) = (spread(&mut seconds), repeats * count);
    Ok(Timing { kernel: kernel.name, op, size, repeats, seconds, bytes, flops })
}

/// The least, the median and the most of some values.
fn spread(values: &mut [f64]) -> [f64; 3] {
    values.sort_by(f64::total_cmp);
    [values[0], values[values.len() / 2], values[values.len() - 1]]
}

/// Words for a binding: the batch, or what the operator asks for, or numbers around one half.
fn input(op: &dyn AnyOp, batch: &Batch, bind: usize, buf: Buf) -> Vec<u32> {
    let mut state = 1u32;
    let mut bits = move || {
        state = state.wrapping_mul(747_796_405).wrapping_add(2_891_336_453);
        state >> 9
    };
    if op.kernel().binds[bind].name == "batch" {
        return batch.words();
    }
    if let Some(words) = op.input(bind, &mut || bits() as f32 / (1 << 23) as f32) {
        return words;
    }
    let words = 0..buf.elem.words(buf.len);
    match buf.elem {
        Elem::U32 => words.map(|_| 0).collect(),
        Elem::F32 => words.map(|_| 0x3f00_0000 | bits() & 0x7f_ffff).collect(),
        Elem::Weights => words.map(|_| 0x3f00_3f00 | bits() & 0x7f_007f).collect(),
        Elem::F16 => words.map(|_| 0x3800_3800 | bits() & 0x3f_03ff).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_of_runs() {
        assert_eq!(spread(&mut [3.0, 1.0, 2.0]), [1.0, 2.0, 3.0]);
        assert_eq!(spread(&mut [5.0]), [5.0; 3]);
    }

    #[test]
    fn bytes_per_second() {
        let size = Size { rows: 1, segments: 1 };
        let timing = Timing {
            kernel: "k",
            op: "K".into(),
            size,
            repeats: 1,
            seconds: [1e-3, 2e-3, 3e-3],
            bytes: 4,
            flops: None,
        };
        assert_eq!(timing.gigabytes_per_second(), 2e-6);
    }
}
