//! Token choice on the device (spec 6), so that decoding never waits for the host.

use crate::batch::{BATCH_WORDS, Batch, MAX_ROWS, PICKED, Row, Size};
use crate::buf::Elem::{F32, U32};
use crate::caps::Caps;
use crate::kernel::{Const, Kernel, Part, read, update};
use crate::numbers;
use crate::op::{Example, Op, floats};
use crate::sampling::{NOT_FINITE, SAMPLING_WORDS, Sampling, seen_words};
use nemoflash_shaders as wgsl;

numbers! {
    /// Chooses a token for every segment that wants one, after [`Sampling`] of its slot.
    ///
    /// Per segment: `picked[slot]` becomes the token, or [`NOT_FINITE`] if a logit is NaN or +inf or none is
    /// finite; the token's bit in `seen` is set; and a segment of one row advances: the row's position by 1,
    /// its token to [`PICKED`], so that the same batch is the next decode step. Logits of -inf and `f32::MIN`
    /// are never chosen.
    ///
    /// The draw is the Gumbel-max trick over a counter-based hash of (seed, position of the segment's last
    /// row, token id): no state, the same on every device up to the rounding of `ln`.
    pub struct Pick {
        /// Segments that `logits` holds, one row each.
        pub rows: u32,
        /// Tokens in the vocabulary; below 2^24, up to which f32 counts.
        pub vocab: u32,
        /// Slots of `sampling`, `seen` and `picked`.
        pub slots: u32,
    }
}

/// A power of 4, by which the kernel reduces.
const WG: u32 = 256;

const KERNEL: Kernel = Kernel {
    name: "pick",
    parts: &[Part::Text(wgsl::BATCH), Part::Text(wgsl::PICK)],
    binds: &[update("batch", U32), read("logits", F32), read("sampling", U32), update("seen", U32), update("picked", U32)],
};

impl Op for Pick {
    fn kernel(&self) -> Kernel {
        KERNEL
    }

    fn consts(&self, _: &Caps) -> Vec<Const> {
        vec![("WG", WG)]
    }

    fn lens(&self) -> Vec<u64> {
        let slots = u64::from(self.slots);
        let logits = u64::from(self.rows) * u64::from(self.vocab);
        vec![BATCH_WORDS, logits, slots * SAMPLING_WORDS, slots * seen_words(self.vocab), slots]
    }

    fn grid(&self, size: Size, caps: &Caps) -> [u32; 3] {
        caps.grid(size.segments.into())
    }

    fn cpu(&self, size: Size, bufs: &mut [Vec<u32>]) {
        let [batch, logits, sampling, seen, picked] = bufs else { unreachable!() };
        let Batch { segments, rows } = Batch::from_words(batch);
        let rows_of_logits = floats(logits).chunks(self.vocab as usize);
        for (segment, logits) in segments.iter().zip(rows_of_logits).take(size.segments as usize) {
            if segment.pick != 1 {
                continue;
            }
            let slot = segment.slot as usize;
            let seen = seen.chunks_mut(seen_words(self.vocab) as usize).nth(slot).expect("a slot has its bits");
            let position = rows[(segment.first + segment.rows - 1) as usize].position;
            let words = &sampling[slot * SAMPLING_WORDS as usize..];
            let token = choose(logits, seen, &Sampling::from_words(words), position);
            picked[slot] = token.unwrap_or(NOT_FINITE);
            if let Some(token) = token {
                seen[token as usize / 32] |= 1 << (token % 32);
            }
            if segment.rows == 1 {
                let at = 4 + 4 * (MAX_ROWS + segment.first as usize);
                let next = Row { token: PICKED, position: position + 1, ..rows[segment.first as usize] };
                batch[at..at + 4].copy_from_slice(&bytemuck::cast::<Row, [u32; 4]>(next));
            }
        }
    }

    fn examples() -> Vec<Example<Self>> {
        let case = |rows, vocab, segments: &[_]| Example::segments(Pick { rows, vocab, slots: 8 }, segments);
        let every_slot: Vec<_> = (0..8).map(|slot| (7 - slot, 300 * slot, 1 + slot % 2)).collect();
        let mut unwanted = case(9, 1023, &every_slot);
        unwanted.batch.segments[3].pick = 0;
        vec![
            case(1, 1, &[(0, 0, 1)]),
            case(2, 2, &[(2, 5, 1), (7, 1, 3)]),
            case(8, 255, &every_slot),
            case(8, 257, &every_slot),
            unwanted,
            case(8, 4096, &every_slot),
            case(1, 131_072, &[(7, 256, 1)]),
        ]
    }

    fn input(&self, bind: usize, uniform: &mut dyn FnMut() -> f32) -> Option<Vec<u32>> {
        let base = Sampling { temperature: 0.8, seed: 1 << 40 | 77, ..Sampling::default() };
        let settings = [
            Sampling::default(),
            Sampling { repetition_penalty: 1.5, ..Sampling::default() },
            base,
            Sampling { top_k: 5, ..base },
            Sampling { top_p: 0.6, ..base },
            Sampling { min_p: 0.1, ..base },
            Sampling { temperature: 1.3, top_k: 50, top_p: 0.9, ..base },
            Sampling { top_k: 40, top_p: 0.95, min_p: 0.02, repetition_penalty: 1.2, ..base },
        ];
        match bind {
            1 => Some((0..self.lens()[1]).map(|_| (16.0 * uniform() - 8.0).to_bits()).collect()),
            2 => Some((0..self.slots as usize).flat_map(|slot| settings[slot % 8].words()).collect()),
            3 => Some((0..self.lens()[3]).map(|_| uniform().to_bits() << 9 & 0x1111_1111).collect()),
            _ => None,
        }
    }

    fn bytes(&self, size: Size) -> Option<u64> {
        Some(u64::from(size.segments) * u64::from(self.vocab) * 4)
    }
}

/// The token that these settings choose, or none if the logits are not finite.
fn choose(logits: &[f32], seen: &[u32], how: &Sampling, position: u32) -> Option<u32> {
    if logits.iter().any(|l| l.is_nan()) {
        return None;
    }
    // Penalised as the kernel does, in f32, so that equal logits stay equal.
    let (up, down) = (how.repetition_penalty, 1.0 / how.repetition_penalty);
    let penalised = |(token, &l): (u32, &f32)| {
        let seen = seen[token as usize / 32] >> (token % 32) & 1 == 1;
        let factor = if !seen || up == 1.0 { 1.0 } else if l > 0.0 { down } else { up };
        (token, l * factor)
    };
    let all = (0..).zip(logits).map(penalised);
    if all.clone().any(|(_, l)| l == f32::INFINITY) {
        return None;
    }
    let all = all.filter(|(_, l)| *l > f32::MIN);
    let score = |(token, l): (u32, f32)| {
        (token, if how.temperature > 0.0 { f64::from(l) + f64::from(how.temperature) * gumbel(how.seed, position, token) } else { f64::from(l) })
    };
    // Strictly larger, so that the first of equal ones stays.
    let better = |best: (u32, f64), next: (u32, f64)| if next.1 > best.1 { next } else { best };
    let off = how.top_k == 0 && how.top_p >= 1.0 && how.min_p <= 0.0;
    if how.temperature <= 0.0 || off {
        return all.map(score).reduce(better).map(|(token, _)| token);
    }
    let mut kept = filtered(all.collect(), how);
    kept.sort_unstable_by_key(|(token, _)| *token);
    kept.into_iter().map(score).reduce(better).map(|(token, _)| token)
}

/// The (token, logit) that top-k, top-p and min-p leave.
fn filtered(mut list: Vec<(u32, f32)>, how: &Sampling) -> Vec<(u32, f32)> {
    let descending = |a: &(u32, f32), b: &(u32, f32)| b.1.total_cmp(&a.1);
    let k = how.top_k as usize;
    if 0 < k && k < list.len() {
        let (_, &mut (_, least), _) = list.select_nth_unstable_by(k - 1, descending);
        list.retain(|(_, l)| *l >= least);
    }
    let Some(top) = list.iter().map(|(_, l)| *l).reduce(f32::max) else { return list };
    let weight = |l: f32| ((f64::from(l) - f64::from(top)) / f64::from(how.temperature)).exp();
    if how.top_p < 1.0 {
        list.sort_unstable_by(descending);
        let budget = f64::from(how.top_p) * list.iter().map(|(_, l)| weight(*l)).sum::<f64>();
        // `above` is the weight of the strictly larger logits, so that equal ones share their fate.
        let (mut above, mut so_far, mut last) = (0.0, 0.0, f32::INFINITY);
        list = list
            .into_iter()
            .take_while(|&(_, l)| {
                if l < last {
                    (above, last) = (so_far, l);
                }
                so_far += weight(l);
                above <= budget
            })
            .collect();
    }
    if how.min_p > 0.0 {
        list.retain(|(_, l)| weight(*l) >= f64::from(how.min_p));
    }
    list
}

/// A standard Gumbel number for a token at a position: -ln(-ln u) of a hashed u.
fn gumbel(seed: u64, position: u32, token: u32) -> f64 {
    let [.., bits] = pcg4d([token, seed as u32, (seed >> 32) as u32, position]);
    let u = (f64::from(bits) + 0.5) / 2f64.powi(32);
    // 1 - u is as uniform as u, and ln_1p keeps all of its digits where it is close to 1.
    -(-(-u).ln_1p()).ln()
}

/// The four-word hash of Jarzynski and Olano, "Hash Functions for GPU Rendering", Journal of Computer Graphics
/// Techniques 9(3), 2020.
fn pcg4d(v: [u32; 4]) -> [u32; 4] {
    let mut v = v.map(|word| word.wrapping_mul(1_664_525).wrapping_add(1_013_904_223));
    let mix = |v: &mut [u32; 4]| {
        for [to, a, b] in [[0, 1, 3], [1, 2, 0], [2, 0, 1], [3, 1, 2]] {
            v[to] = v[to].wrapping_add(v[a].wrapping_mul(v[b]));
        }
    };
    mix(&mut v);
    v = v.map(|word| word ^ word >> 16);
    mix(&mut v);
    v
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of the published definition, computed with another implementation of it.
    #[test]
    fn hash_is_pcg4d() {
        assert_eq!(pcg4d([0; 4]), [0x0f02_f829, 0x2d56_8769, 0x32b0_c43b, 0xd325_48ea]);
        assert_eq!(pcg4d([1, 2, 3, 4]), [0x3622_cd16, 0xf114_71d8, 0xe110_9b3f, 0x02b9_4c2f]);
        let large = [131_071, 0xdead_beef, 7, 300];
        assert_eq!(pcg4d(large), [0x9a8a_22c7, 0x675e_9434, 0xa58a_5970, 0x59e4_957a]);
    }

    /// Mean Euler's constant, variance pi²/6.
    #[test]
    fn gumbel_moments() {
        let n = 200_000;
        let all = || (0..n).map(|i| gumbel(9, i / 500, i % 500));
        let mean = all().sum::<f64>() / f64::from(n);
        let variance = all().map(|g| (g - mean).powi(2)).sum::<f64>() / f64::from(n);
        assert!((mean - 0.577_216).abs() < 0.015, "{mean}");
        assert!((variance - 1.644_934).abs() < 0.05, "{variance}");
    }
}
