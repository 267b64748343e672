//! What a device can do at best.

use super::describe::SHORT;
use crate::Result;
use crate::buf::Elem;
use crate::engine::Clock;
use crate::exec::Exec;

/// Bytes of the copied buffer: more than caches hold,
const BYTES: u64 = 256 << 20;
/// and less on a GPU in software, which shares them with everybody.
const SOFTWARE_BYTES: u64 = 64 << 20;
/// Seconds that the copies of one measurement should take, so that submitting them hardly counts.
const LONG: f64 = 0.02;
/// Most copies of one measurement.
const MOST: usize = 256;
/// Measurements; the fastest counts.
const RUNS: usize = 3;

/// Bytes per second that a device reads and writes when it copies memory, both counted, by the host's clock; nothing on the
/// CPU. It allocates two buffers and gives them back.
///
/// # Errors
/// [`Error::OutOfMemory`](crate::Error::OutOfMemory), [`Error::Device`](crate::Error::Device).
pub async fn copy_bytes_per_second(exec: &mut Exec, clock: Clock) -> Result<Option<f64>> {
    if !matches!(exec, Exec::Gpu(_)) {
        return Ok(None);
    }
    let caps = exec.caps();
    let most = if caps.software { SOFTWARE_BYTES } else { BYTES };
    let words = most.min(caps.max_binding).min(caps.max_buffer) / 4;
    let from = exec.alloc("copied", words, Elem::U32).await?;
    let to = match exec.alloc("copy", words, Elem::U32).await {
        Ok(to) => to,
        Err(error) => {
            exec.free(from);
            return Err(error);
        }
    };
    let mut measure = async || {
        let (mut copies, mut best, mut runs) = (1, 0.0f64, 0);
        while runs < RUNS {
            exec.wait().await?;
            let begin = clock();
            exec.copy(&vec![(from, 0, to, 0, words); copies]);
            exec.wait().await?;
            let seconds = clock() - begin;
            if seconds < LONG && copies < MOST {
                copies *= 2;
                continue;
            }
            best = best.max((8 * words * copies as u64) as f64 / seconds.max(SHORT));
            runs += 1;
        }
        Ok(Some(best))
    };
    let rate = measure().await;
    exec.free(from);
    exec.free(to);
    rate
}
