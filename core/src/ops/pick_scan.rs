//! The single pass over all logits when tokens are chosen (spec 6). It computes what [`Pick`](super::Pick) needs of
//! every block of tokens.

use super::pick::{gumbel, penalised};
use crate::batch::{BATCH_WORDS, Batch, Size};
use crate::buf::Elem::{F32, U32};
use crate::caps::Caps;
use crate::kernel::{Const, Kernel, Source, read, write};
use crate::numbers;
use crate::op::{Example, Op, floats, floats_mut};
use crate::sampling::{SAMPLING_WORDS, Sampling, seen_words};
use nemoflash_shaders as wgsl;

numbers! {
    /// Reduces the logits of every segment that needs a token to two numbers for each block of [`PickScan::block`]
    /// tokens.
    ///
    /// `maxima` has the key of the block's largest logit after the repetition penalty. Keys are unsigned integers in
    /// the order of the floats. The key is 0 if all logits are -inf or `f32::MIN`, and `u32::MAX` if one is NaN or
    /// +inf.
    ///
    /// `scores` depends on the settings of the slot. If nothing is filtered, it is the largest score of a random choice
    /// in the block. For top-p without top-k, it is the sum of exp((l - the block's largest) / temperature). Otherwise
    /// it is 0.
    pub struct PickScan {
        /// Rows of `logits`: one for each segment.
        pub rows: u32,
        /// Tokens in the vocabulary. There must be fewer than 2^24, because f32 represents integers only up to that.
        pub vocab: u32,
        /// Slots of `sampling` and `seen`.
        pub slots: u32,
    }
}

/// The key of a block in which a logit is NaN or +inf.
pub(super) const BROKEN: u32 = u32::MAX;
const WG: u32 = 128;
/// Tokens of a workgroup: 8 for each thread.
const AT_A_TIME: u32 = 8 * WG;

const KERNEL: Kernel = Kernel {
    name: "pick_scan",
    parts: &[Source::Text(wgsl::GRID), Source::Text(wgsl::BATCH), Source::Text(wgsl::CHOICE), Source::Text(wgsl::PICK_SCAN)],
    binds: &[
        read("batch", U32),
        read("logits", F32),
        read("sampling", U32),
        read("seen", U32),
        write("maxima", U32),
        write("scores", F32),
    ],
};

impl PickScan {
    /// Tokens of a block. A large vocabulary has larger blocks, so that there are at most about a thousand of them. An
    /// eighth of a block must be a power of 4, because of how the kernel adds up.
    pub const fn block(vocab: u32) -> u32 {
        if vocab <= 1 << 15 { 32 } else { 128 }
    }

    /// Number of blocks of a vocabulary: the length of a row of `maxima` and of `scores`.
    pub const fn blocks(vocab: u32) -> u32 {
        vocab.div_ceil(Self::block(vocab))
    }
}

impl Op for PickScan {
    fn kernel(&self) -> Kernel {
        KERNEL
    }

    fn consts(&self, _: &Caps) -> Vec<Const> {
        vec![("WG", WG), ("BLOCK", Self::block(self.vocab))]
    }

    fn lens(&self) -> Vec<u64> {
        let [rows, vocab, slots] = [self.rows, self.vocab, self.slots].map(u64::from);
        let blocks = rows * u64::from(Self::blocks(self.vocab));
        vec![BATCH_WORDS, rows * vocab, slots * SAMPLING_WORDS, slots * seen_words(self.vocab), blocks, blocks]
    }

    fn grid(&self, size: Size, caps: &Caps) -> [u32; 3] {
        caps.grid(u64::from(size.segments) * u64::from(self.vocab.div_ceil(AT_A_TIME)))
    }

    fn cpu(&self, size: Size, bufs: &mut [Vec<u32>]) {
        let [batch, logits, sampling, seen, maxima, scores] = bufs else { unreachable!() };
        let Batch { segments, rows } = Batch::from_words(batch);
        let blocks = Self::blocks(self.vocab) as usize;
        let results = maxima.chunks_mut(blocks).zip(floats_mut(scores).chunks_mut(blocks));
        let rows_of_logits = floats(logits).chunks(self.vocab as usize);
        let all = segments.iter().zip(rows_of_logits).zip(results).take(size.segments as usize);
        for ((segment, logits), (maxima, scores)) in all.filter(|((segment, _), _)| segment.pick == 1) {
            let slot = segment.slot as usize;
            let seen = seen.chunks(seen_words(self.vocab) as usize).nth(slot).expect("a slot has its bits");
            let how = Sampling::from_words(&sampling[slot * SAMPLING_WORDS as usize..]);
            scan(logits, seen, &how, rows[(segment.first + segment.rows - 1) as usize].position, maxima, scores);
        }
    }

    fn examples() -> Vec<Example<Self>> {
        super::Pick::examples()
            .into_iter()
            .map(|Example { op: super::Pick { rows, vocab, slots }, batch }| Example {
                op: PickScan { rows, vocab, slots },
                batch,
            })
            .collect()
    }

    fn input(&self, bind: usize, uniform: &mut dyn FnMut() -> f32) -> Option<Vec<u32>> {
        let pick = super::Pick { rows: self.rows, vocab: self.vocab, slots: self.slots };
        match bind {
            1 => pick.input(1, uniform),
            2 => pick.input(4, uniform),
            3 => Some((0..self.lens()[3]).map(|_| uniform().to_bits() << 9 & 0x1111_1111).collect()),
            _ => None,
        }
    }

    fn bytes(&self, size: Size) -> Option<u64> {
        let [vocab, blocks] = [self.vocab, Self::blocks(self.vocab)].map(u64::from);
        Some(u64::from(size.segments) * (4 * vocab + 8 * blocks))
    }
}

/// What [`PickScan`]'s `scores` hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Score {
    /// Nothing: the largest logits are enough.
    Nothing,
    /// The largest score of a random choice in each block, because nothing is filtered.
    Draw,
    /// The weight of each block, for top-p.
    Mass,
}

/// What `scores` must hold for these settings.
pub(super) fn score(how: &Sampling, vocab: u32) -> Score {
    let by_count = 0 < how.top_k && how.top_k < vocab;
    match (how.temperature > 0.0, by_count, how.top_p < 1.0) {
        (false, ..) => Score::Nothing,
        (true, false, true) => Score::Mass,
        (true, false, false) if how.min_p <= 0.0 => Score::Draw,
        (true, ..) => Score::Nothing,
    }
}

/// `maxima` and `scores` of one row of logits.
pub(super) fn scan(
    logits: &[f32],
    seen: &[u32],
    how: &Sampling,
    position: u32,
    maxima: &mut [u32],
    scores: &mut [f32],
) {
    let score = score(how, logits.len() as u32);
    let temperature = f64::from(how.temperature);
    let size = PickScan::block(logits.len() as u32) as usize;
    let blocks = logits.chunks(size).zip((0..).step_by(size));
    for ((block, first), (max, to)) in blocks.zip(maxima.iter_mut().zip(scores)) {
        let all = penalised(block, first, seen, how);
        // Without a penalty, the raw logits are used: that loop has no branch, and nothing else is needed for greedy
        // choice.
        *max = match how.repetition_penalty == 1.0 {
            true => largest(block.iter().copied()),
            false => largest(all.clone().map(|(_, l)| l)),
        };
        if score == Score::Nothing || *max == 0 || *max == BROKEN {
            *to = 0.0;
            continue;
        }
        let all = all.filter(|(_, l)| *l > f32::MIN).map(|(token, l)| (token, f64::from(l)));
        *to = match score {
            Score::Draw => {
                let draws = all.map(|(token, l)| l + temperature * gumbel(how.seed, position, token));
                draws.fold(f64::NEG_INFINITY, f64::max) as f32
            }
            _ => {
                let top = all.clone().fold(f64::NEG_INFINITY, |top, (_, l)| top.max(l));
                all.map(|(_, l)| ((l - top) / temperature).exp()).sum::<f64>() as f32
            }
        };
    }
}

/// The key of the largest of these logits.
fn largest(logits: impl Iterator<Item = f32>) -> u32 {
    let (low, high) = logits.map(key).fold((u32::MAX, 0), |(low, high), key| (low.min(key), high.max(key)));
    match high {
        // The keys of NaNs are above that of +inf or below that of -inf.
        _ if low < key(f32::NEG_INFINITY) || high >= key(f32::INFINITY) => BROKEN,
        _ if high <= key(f32::MIN) => 0,
        _ => high,
    }
}

/// Unsigned integers in the order of the floats. -0 and +0 have the same key.
fn key(value: f32) -> u32 {
    let bits = value.to_bits();
    if bits >> 31 == 1 { 0u32.wrapping_sub(bits) } else { bits | 1 << 31 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_in_order() {
        let values = [f32::NEG_INFINITY, f32::MIN, -1.0, -1e-40, 0.0, 1e-40, 1.0, f32::MAX, f32::INFINITY];
        assert!(values.windows(2).all(|pair| key(pair[0]) < key(pair[1])));
        assert_eq!(key(-0.0), key(0.0));
        assert!(key(f32::NAN) > key(f32::INFINITY) && key(-f32::NAN) < key(f32::NEG_INFINITY));
        let of = |values: &[f32]| largest(values.iter().copied());
        assert_eq!(of(&[f32::NEG_INFINITY, f32::MIN]), 0);
        assert_eq!(of(&[f32::NEG_INFINITY, -3.0, -4.0]), key(-3.0));
        for bad in [f32::NAN, -f32::NAN, f32::INFINITY] {
            assert_eq!(of(&[2.0, bad, 1.0]), BROKEN);
        }
    }

    #[test]
    fn scores_are_what_settings_need() {
        let warm = Sampling { temperature: 1.0, ..Sampling::default() };
        for (how, want) in [
            (Sampling { top_p: 0.5, ..Sampling::default() }, Score::Nothing),
            (warm, Score::Draw),
            (Sampling { top_k: 100, ..warm }, Score::Draw),
            (Sampling { top_k: 99, ..warm }, Score::Nothing),
            (Sampling { top_k: 99, top_p: 0.5, ..warm }, Score::Nothing),
            (Sampling { top_k: 100, top_p: 0.5, ..warm }, Score::Mass),
            (Sampling { top_p: 0.5, min_p: 0.1, ..warm }, Score::Mass),
            (Sampling { min_p: 0.1, ..warm }, Score::Nothing),
        ] {
            assert_eq!(score(&how, 100), want, "{how:?}");
        }
    }
}
