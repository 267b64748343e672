//! The choice of tokens on the device (spec 6), so that decode never waits for the host.

use super::most_threads;
use super::pick_scan::{BROKEN, PickScan, Score, scan, score};
use crate::batch::{BATCH_WORDS, Batch, PICKED, ROWS_AT, Row, Size};
use crate::buf::Elem::{F32, U32};
use crate::caps::Caps;
use crate::kernel::{Const, Kernel, Source, read, update};
use crate::numbers;
use crate::op::{Example, Op, floats};
use crate::sampling::{NOT_FINITE, SAMPLING_WORDS, Sampling, seen_words};
use nemoflash_shaders as wgsl;

numbers! {
    /// Chooses a token for every segment that needs one, by the [`Sampling`] of its slot, from its logits and the
    /// results of [`PickScan`].
    ///
    /// For each such segment, `picked[slot]` becomes the token, or [`NOT_FINITE`] if a logit is NaN or +inf or if no
    /// logit is finite. The token's bit in `seen` is set. If the segment has one row, that row advances: its position
    /// grows by 1 and its token becomes [`PICKED`], so that the same batch is the next decode step. Logits of -inf and
    /// `f32::MIN` are never chosen.
    ///
    /// The random choice is the Gumbel-max trick with a hash of (seed, position of the segment's last row, token id).
    /// It needs no state, and it is the same on every device up to the rounding of `ln`.
    pub struct Pick {
        /// Rows of `logits`: one for each segment.
        pub rows: u32,
        /// Tokens in the vocabulary. There must be fewer than 2^24, because f32 represents integers only up to that.
        pub vocab: u32,
        /// Slots of `sampling`, `seen` and `picked`.
        pub slots: u32,
    }
}

const KERNEL: Kernel = Kernel {
    name: "pick",
    parts: &[Source::Text(wgsl::BATCH), Source::Text(wgsl::CHOICE), Source::Text(wgsl::PICK)],
    binds: &[
        update("batch", U32),
        read("logits", F32),
        read("maxima", U32),
        read("scores", F32),
        read("sampling", U32),
        update("seen", U32),
        update("picked", U32),
    ],
};

impl Op for Pick {
    fn kernel(&self) -> Kernel {
        KERNEL
    }

    fn consts(&self, caps: &Caps) -> Vec<Const> {
        vec![("WG", most_threads(caps)), ("BLOCK", PickScan::block(self.vocab))]
    }

    fn lens(&self) -> Vec<u64> {
        let [rows, vocab, slots] = [self.rows, self.vocab, self.slots].map(u64::from);
        let blocks = rows * u64::from(PickScan::blocks(self.vocab));
        vec![
            BATCH_WORDS,
            rows * vocab,
            blocks,
            blocks,
            slots * SAMPLING_WORDS,
            slots * seen_words(self.vocab),
            slots,
        ]
    }

    fn grid(&self, size: Size, caps: &Caps) -> [u32; 3] {
        caps.grid(size.segments.into())
    }

    fn cpu(&self, size: Size, bufs: &mut [Vec<u32>]) {
        let [batch, logits, maxima, scores, sampling, seen, picked] = bufs else { unreachable!() };
        let Batch { segments, rows } = Batch::from_words(batch);
        let blocks = PickScan::blocks(self.vocab) as usize;
        let found = maxima.chunks(blocks).zip(floats(scores).chunks(blocks));
        let all = segments.iter().zip(floats(logits).chunks(self.vocab as usize).zip(found));
        for (segment, (logits, found)) in all.take(size.segments as usize).filter(|(segment, _)| segment.pick == 1) {
            let slot = segment.slot as usize;
            let seen = seen.chunks_mut(seen_words(self.vocab) as usize).nth(slot).expect("a slot has its bits");
            let position = rows[(segment.first + segment.rows - 1) as usize].position;
            let words = &sampling[slot * SAMPLING_WORDS as usize..];
            let token = choose(logits, found, seen, &Sampling::from_words(words), position);
            picked[slot] = token.unwrap_or(NOT_FINITE);
            if let Some(token) = token {
                seen[token as usize / 32] |= 1 << (token % 32);
            }
            if segment.rows == 1 {
                let at = ROWS_AT + 4 * segment.first as usize;
                let next = Row { token: PICKED, position: position + 1, ..rows[segment.first as usize] };
                batch[at..at + 4].copy_from_slice(&bytemuck::cast::<Row, [u32; 4]>(next));
            }
        }
    }

    fn examples() -> Vec<Example<Self>> {
        // Segment i has slot `slots` - 1 - i. `input` relies on that, and the slot selects one of the settings.
        let case = |slots: u32, vocab, segments: &[(u32, u32)]| {
            let rows = segments.len() as u32;
            let segments: Vec<_> = (0..).zip(segments).map(|(i, &(at, rows))| (slots - 1 - i, at, rows)).collect();
            Example::segments(Pick { rows, vocab, slots }, &segments)
        };
        let every_slot: Vec<_> = (0..8).map(|slot| (300 * slot, 1 + slot % 2)).collect();
        let mut unwanted = case(8, 1023, &every_slot);
        (unwanted.op.rows, unwanted.batch.segments[3].pick) = (9, 0);
        vec![
            case(1, 1, &[(0, 1)]),
            case(8, 2, &[(5, 1), (1, 3)]),
            case(8, 255, &every_slot),
            case(8, 257, &every_slot),
            unwanted,
            case(8, 4096, &every_slot),
            // Greedy, a random choice without filters, top-k, and top-p of logits so even that thousands of tokens
            // pass.
            case(1, 131_072, &[(256, 1)]),
            case(3, 131_072, &[(256, 1)]),
            case(4, 131_072, &[(256, 1)]),
            case(5, 131_072, &[(256, 1)]),
            case(8, 131_072, &[(256, 1)]),
        ]
    }

    fn input(&self, bind: usize, uniform: &mut dyn FnMut() -> f32) -> Option<Vec<u32>> {
        match bind {
            1 => Some(self.logits(uniform)),
            2 => Some(self.found(uniform).0),
            3 => Some(self.found(uniform).1),
            4 => Some((0..self.slots as usize).flat_map(|slot| settings()[slot % 8].words()).collect()),
            5 => Some((0..self.slots).flat_map(|_| seen_blocks(self.vocab)).collect()),
            _ => None,
        }
    }

    fn bytes(&self, size: Size) -> Option<u64> {
        let [block, blocks] = [PickScan::block(self.vocab).min(self.vocab), PickScan::blocks(self.vocab)].map(u64::from);
        Some(u64::from(size.segments) * (8 * blocks + 4 * block))
    }
}

// The inputs of an example are made binding by binding, and must fit together. So the logits in a block depend only on
// row and block, except for their order, and the tokens of a block are either all seen or all not seen.
impl Pick {
    fn logits(&self, uniform: &mut dyn FnMut() -> f32) -> Vec<u32> {
        let (mut words, block) = (vec![], PickScan::block(self.vocab));
        for row in 0..self.rows {
            for first in (0..self.vocab).step_by(block as usize) {
                let len = block.min(self.vocab - first);
                let turn = (uniform() * len as f32) as u32;
                words.extend((0..len).map(|i| logit(row, first + (i + turn) % len).to_bits()));
            }
        }
        words
    }

    /// `maxima` and `scores`. The scores of random choices may be any numbers: the token is then chosen from the block
    /// with the largest score.
    fn found(&self, uniform: &mut dyn FnMut() -> f32) -> (Vec<u32>, Vec<u32>) {
        let blocks = PickScan::blocks(self.vocab) as usize;
        let seen = seen_blocks(self.vocab);
        let (mut all_maxima, mut all_scores) = (vec![], vec![]);
        for row in 0..self.rows {
            let how = &settings()[self.slots.saturating_sub(1 + row) as usize % 8];
            let logits: Vec<f32> = (0..self.vocab).map(|token| logit(row, token)).collect();
            let (mut maxima, mut scores) = (vec![0; blocks], vec![0.0; blocks]);
            scan(&logits, &seen, how, 0, &mut maxima, &mut scores);
            if score(how, self.vocab) == Score::Draw {
                scores.iter_mut().for_each(|score| *score = 16.0 * uniform() - 8.0);
            }
            all_maxima.extend(maxima);
            all_scores.extend(scores.into_iter().map(f32::to_bits));
        }
        (all_maxima, all_scores)
    }
}

/// Settings of the examples' slots.
fn settings() -> [Sampling; 8] {
    let base = Sampling { temperature: 0.8, seed: 1 << 40 | 77, ..Sampling::default() };
    [
        Sampling::default(),
        Sampling { repetition_penalty: 1.5, ..Sampling::default() },
        base,
        Sampling { top_k: 5, ..base },
        Sampling { top_p: 0.6, ..base },
        Sampling { min_p: 0.1, ..base },
        Sampling { temperature: 1.3, top_k: 50, top_p: 0.9, ..base },
        Sampling { top_k: 40, top_p: 0.95, min_p: 0.02, repetition_penalty: 1.2, ..base },
    ]
}

/// A logit between -8 and 8.
fn logit(row: u32, token: u32) -> f32 {
    let [.., bits] = pcg4d([token, row, 0, 0]);
    bits as f32 / 2f32.powi(28) - 8.0
}

/// The `seen` bits of all tokens in every second block.
fn seen_blocks(vocab: u32) -> Vec<u32> {
    let words = PickScan::block(vocab) / 32;
    (0..seen_words(vocab) as u32).map(|word| if word / words % 2 == 1 { u32::MAX } else { 0 }).collect()
}

/// The (token, logit) of these logits after the repetition penalty. The first logit is that of token `first`. The
/// penalty is computed in f32 like in the kernels, so that equal logits stay equal.
pub(super) fn penalised<'a>(
    logits: &'a [f32],
    first: u32,
    seen: &'a [u32],
    how: &Sampling,
) -> impl Iterator<Item = (u32, f32)> + Clone + use<'a> {
    let (up, down) = (how.repetition_penalty, 1.0 / how.repetition_penalty);
    (first..).zip(logits).map(move |(token, &l)| {
        let seen = seen[token as usize / 32] >> (token % 32) & 1 == 1;
        let factor = if !seen || up == 1.0 { 1.0 } else if l > 0.0 { down } else { up };
        (token, l * factor)
    })
}

/// The token that these settings choose; `None` if the logits are not finite. `found` is the result of [`scan`]. If
/// filters are on, only whether the logits are finite is taken from `found`: the kernel uses the results for a
/// shortcut, and this twin, which filters all logits, checks it.
fn choose(
    logits: &[f32],
    (maxima, scores): (&[u32], &[f32]),
    seen: &[u32],
    how: &Sampling,
    position: u32,
) -> Option<u32> {
    if maxima.contains(&BROKEN) {
        return None;
    }
    let temperature = f64::from(how.temperature);
    let value = |(token, l): (u32, f32)| match temperature > 0.0 {
        true => (token, f64::from(l) + temperature * gumbel(how.seed, position, token)),
        false => (token, f64::from(l)),
    };
    let candidates = |logits, first| penalised(logits, first, seen, how).filter(|(_, l)| *l > f32::MIN);
    let off = how.top_k == 0 && how.top_p >= 1.0 && how.min_p <= 0.0;
    if temperature > 0.0 && !off {
        let mut kept = filtered(candidates(logits, 0).collect(), how);
        kept.sort_unstable_by_key(|(token, _)| *token);
        return first_of_largest(kept.into_iter().map(value));
    }
    // The token is in the block with the largest value.
    let blocks = (0..).zip(maxima.iter().zip(scores)).filter(|(_, (max, _))| **max > 0);
    let by_draw = score(how, logits.len() as u32) == Score::Draw;
    let decides = |max: u32, score: f32| if by_draw { f64::from(score) } else { f64::from(max) };
    let size = PickScan::block(logits.len() as u32);
    let first = first_of_largest(blocks.map(|(block, (max, score))| (block, decides(*max, *score))))? * size;
    let block = &logits[first as usize..logits.len().min((first + size) as usize)];
    first_of_largest(candidates(block, first).map(value))
}

/// The number with the largest value, of a list of (number, value). Of equal values the first one wins.
fn first_of_largest(all: impl Iterator<Item = (u32, f64)>) -> Option<u32> {
    let better = |best: (u32, f64), next: (u32, f64)| if next.1 > best.1 { next } else { best };
    all.reduce(better).map(|(number, _)| number)
}

/// The (token, logit) that top-k, top-p and min-p keep.
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
        // `above` is the weight of all strictly larger logits, so that equal logits are kept or dropped together.
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

/// A standard Gumbel number for a token at a position: -ln(-ln u), where u is a uniform number from a hash.
pub(super) fn gumbel(seed: u64, position: u32, token: u32) -> f64 {
    let [.., bits] = pcg4d([token, seed as u32, (seed >> 32) as u32, position]);
    let u = (f64::from(bits) + 0.5) / 2f64.powi(32);
    // 1 - u is as uniform as u, and `ln_1p` keeps all digits of it where it is close to 1.
    -(-(-u).ln_1p()).ln()
}

/// The four-word hash pcg4d of Jarzynski and Olano, "Hash Functions for GPU Rendering", Journal of Computer Graphics
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

    /// The mean is Euler's constant, and the variance is pi²/6.
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
