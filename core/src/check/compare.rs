//! Comparison by the ratio of root mean squares. This one number is independent of scale and size.

use crate::buf::Elem;
use half::f16;

/// The word that outputs hold before a run, and that follows the end of every buffer. It is NaN as f32, and NaN in both
/// halves as f16 and as bf16.
pub const POISON: u32 = 0x7fc1_7fc1;

/// Compares `got` with `want`: RMS(got - want) / RMS(want) must not exceed `tolerance`. If `want` is all zeros,
/// RMS(got) must not exceed it. A number that is not finite fails on either side. Returns the ratio.
///
/// # Errors
/// A message that says what differs, with the place of the largest difference.
pub fn rms_ratio(name: &str, want: &[f32], got: &[f32], tolerance: f64) -> Result<f64, String> {
    if want.len() != got.len() {
        return Err(format!("{name}: {} values wanted, {} got", want.len(), got.len()));
    }
    for (side, values) in [("wanted", want), ("got", got)] {
        if let Some(i) = values.iter().position(|v| !v.is_finite()) {
            let count = values.iter().filter(|v| !v.is_finite()).count();
            return Err(format!("{name}: {side} {} at {i}; {count} of {} not finite", values[i], values.len()));
        }
    }
    let mean = |sum: f64| (sum / want.len().max(1) as f64).sqrt();
    let scale = mean(want.iter().map(|&v| f64::from(v).powi(2)).sum());
    let difference = |i: usize| (f64::from(got[i]) - f64::from(want[i])).abs();
    let error = mean((0..want.len()).map(|i| difference(i).powi(2)).sum());
    let ratio = error / if scale > 1e-30 { scale } else { 1.0 };
    let worst = (0..want.len()).max_by(|&a, &b| difference(a).total_cmp(&difference(b))).unwrap_or(0);
    if ratio <= tolerance {
        return Ok(ratio);
    }
    Err(format!(
        "{name}: ratio {ratio:.2e}, tolerance {tolerance:.0e}, over {} values; worst at {worst}: wanted {} got {}",
        want.len(),
        want[worst],
        got[worst]
    ))
}

/// Compares the words of a written buffer of `len` elements with those of the CPU twin: integers exactly, numbers by
/// their RMS ratio. Words that the twin left poisoned must still be poisoned, words that it wrote must be written, and
/// words after the end must be unchanged.
///
/// # Errors
/// A message that says what differs, and where.
pub fn compare_words(
    name: &str,
    elem: Elem,
    len: u64,
    want: &[u32],
    got: &[u32],
    tolerance: f64,
) -> Result<f64, String> {
    let end = elem.words(len) as usize;
    for (side, words) in [("the twin", want), ("the kernel", got)] {
        if let Some(i) = words[end..].iter().position(|word| *word != POISON) {
            return Err(format!("{name}: {side} wrote past the end, {i} words after word {end}"));
        }
    }
    let (want, got) = (&want[..end], &got[..end]);
    if matches!(elem, Elem::U32 | Elem::Weights) {
        return match (0..end).find(|&i| want[i] != got[i]) {
            Some(i) => Err(format!("{name}: wanted {:#x} got {:#x} at {i} of {end}", want[i], got[i])),
            None => Ok(0.0),
        };
    }
    let (want_bits, got_bits) = (elements(elem, want, len), elements(elem, got, len));
    let poison = if elem == Elem::F32 { POISON } else { POISON & 0xffff };
    let mut written = (vec![], vec![]);
    for (i, (&w, &g)) in want_bits.iter().zip(&got_bits).enumerate() {
        match (w == poison, g == poison) {
            (true, true) => {}
            (true, false) => return Err(format!("{name}: wrote element {i}, which the twin does not write")),
            (false, true) => return Err(format!("{name}: never wrote element {i} of {len}")),
            (false, false) => {
                written.0.push(decode(elem, w));
                written.1.push(decode(elem, g));
            }
        }
    }
    if written.0.is_empty() {
        return Err(format!("{name}: the twin wrote nothing"));
    }
    rms_ratio(name, &written.0, &written.1, tolerance)
}

/// The bits of each element.
fn elements(elem: Elem, words: &[u32], len: u64) -> Vec<u32> {
    match elem {
        Elem::F32 | Elem::U32 | Elem::Weights => words.to_vec(),
        Elem::F16 => words.iter().flat_map(|w| [w & 0xffff, w >> 16]).take(len as usize).collect(),
    }
}

fn decode(elem: Elem, bits: u32) -> f32 {
    match elem {
        Elem::F32 | Elem::U32 | Elem::Weights => f32::from_bits(bits),
        Elem::F16 => f16::from_bits(bits as u16).to_f32(),
    }
}

/// Adds the RMS of all elements to one element that the CPU twin wrote. This is the smallest fault that every
/// comparison must find.
pub(super) fn disturb(elem: Elem, len: u64, words: &mut [u32]) {
    let end = elem.words(len) as usize;
    if matches!(elem, Elem::U32 | Elem::Weights) {
        words[end - 1] ^= 1;
        return;
    }
    let poison = if elem == Elem::F32 { POISON } else { POISON & 0xffff };
    let bits = elements(elem, &words[..end], len);
    let written: Vec<usize> = (0..bits.len()).filter(|&i| bits[i] != poison).collect();
    let Some(&i) = written.last() else { return };
    let squares: f64 = written.iter().map(|&i| f64::from(decode(elem, bits[i])).powi(2)).sum();
    let rms = (squares / written.len() as f64).sqrt() as f32;
    let value = decode(elem, bits[i]) + if rms > 0.0 { rms } else { 1.0 };
    let half = |new: u16, word: u32| {
        if i % 2 == 0 { word & 0xffff_0000 | u32::from(new) } else { word & 0xffff | u32::from(new) << 16 }
    };
    match elem {
        Elem::F32 | Elem::U32 | Elem::Weights => words[i] = value.to_bits(),
        Elem::F16 => words[i / 2] = half(f16::from_f32(value).to_bits(), words[i / 2]),
    }
}
