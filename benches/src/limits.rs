//! Measures what a device can do at best.

use crate::describe::SHORT;
use nemoflash::batch::Size;
use nemoflash::ops::MatvecAdd;
use nemoflash::plan::Plan;
use nemoflash::{Buf, Clock, Elem, Error, Exec, Format, Result};

/// Bytes that are read or copied at a time: more than caches hold.
const BYTES: u64 = 256 << 20;
/// Fewer bytes for a GPU in software, which shares its memory with everything else.
const SOFTWARE_BYTES: u64 = 64 << 20;
/// Seconds that one measurement should take, so that submitting it hardly counts.
const LONG: f64 = 0.02;
/// Most repetitions of one measurement.
const MOST: usize = 256;
/// Number of measurements. The fastest one counts.
const RUNS: usize = 3;
/// Bytes of each of the buffers by which free memory is found.
const PROBE: u64 = 256 << 20;
/// Columns of the matrix that is read.
const COLS: u32 = 2048;

/// How many bytes of buffers a GPU can hold, up to `most`. It allocates buffers to find out, because there is no other
/// way. The buffers are not written, and all are freed.
///
/// # Errors
/// [`Error::Device`].
pub async fn buffer_bytes(exec: &mut Exec, most: u64) -> Result<u64> {
    let caps = exec.caps();
    let each = PROBE.min(caps.max_binding).min(caps.max_buffer);
    let (mut bufs, mut result) = (vec![], Ok(()));
    while result.is_ok() && bufs.len() as u64 * each < most {
        match exec.alloc("probe", each / 4, Elem::U32).await {
            Ok(buf) => bufs.push(buf),
            Err(Error::OutOfMemory { .. }) => break,
            Err(error) => result = Err(error),
        }
    }
    let held = bufs.len() as u64 * each;
    bufs.into_iter().for_each(|buf| exec.free(buf));
    exec.wait().await?;
    result.map(|()| held)
}

/// Bytes per second of a device's memory, by the host's clock. It is what the device reads in the product of a large
/// matrix with one row, or what it reads and writes in a copy, whichever is more (some drivers copy slowly). `None` on
/// the CPU. It allocates buffers and frees them.
///
/// # Errors
/// [`Error::OutOfMemory`], [`Error::Device`].
pub async fn memory_bytes_per_second(exec: &mut Exec, clock: Clock) -> Result<Option<f64>> {
    if !matches!(exec, Exec::Gpu(_)) {
        return Ok(None);
    }
    let caps = exec.caps();
    let most = if caps.software { SOFTWARE_BYTES } else { BYTES };
    let bytes = most.min(caps.max_binding).min(caps.max_buffer);
    let outs = (bytes / u64::from(2 * COLS)) as u32;
    let (cols, bytes) = (COLS, u64::from(outs) * u64::from(2 * COLS));
    let format = Format::Bf16;
    let mut bufs: Vec<Buf> = vec![];
    let mut measure = async || {
        for (name, len, elem) in [
            ("read", format.words(outs, cols), Elem::Weights),
            ("x", cols.into(), Elem::F32),
            ("y", outs.into(), Elem::F32),
            ("copy", format.words(outs, cols), Elem::Weights),
        ] {
            bufs.push(exec.alloc(name, len, elem).await?);
        }
        let mut plan = Plan::default();
        let op = MatvecAdd { rows: 1, cols, outs, first: 0, stride: outs, eps: 0.0, lines: outs, format };
        plan.add(op, &bufs[..3]);
        exec.prepare(&mut plan).await?;
        let size = Size { rows: 1, segments: 1 };
        let read = best(exec, clock, async |exec, times| {
            let ticket = exec.submit(&vec![(&plan, size); times], None)?;
            exec.collect(ticket).await.map(drop)
        });
        let read = bytes as f64 / read.await?;
        let copy = best(exec, clock, async |exec, times| {
            exec.copy(&vec![(bufs[0], 0, bufs[3], 0, bytes / 4); times]);
            exec.wait().await
        });
        Ok(Some(read.max((2 * bytes) as f64 / copy.await?)))
    };
    let rate = measure().await;
    bufs.into_iter().for_each(|buf| exec.free(buf));
    rate
}

/// Seconds of one repetition in the best of several measurements. `run` does the given number of repetitions and
/// waits for them.
async fn best(exec: &mut Exec, clock: Clock, run: impl AsyncFn(&mut Exec, usize) -> Result<(), Error>) -> Result<f64> {
    let (mut times, mut best, mut runs) = (1, f64::INFINITY, 0);
    while runs < RUNS {
        exec.wait().await?;
        let begin = clock();
        run(exec, times).await?;
        let seconds = clock() - begin;
        if seconds < LONG && times < MOST {
            times *= 2;
            continue;
        }
        best = best.min(seconds.max(SHORT) / times as f64);
        runs += 1;
    }
    Ok(best)
}
