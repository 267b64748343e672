//! How a token is chosen: the settings of one sequence and their device layout (spec section 6).

use crate::{Error, Result};

/// Words of one [`Sampling`] on a device.
pub const SAMPLING_WORDS: u64 = 8;
/// The kernel that picks tokens writes this instead of a token if the logits are NaN or infinite. The host turns it
/// into [`Error::NonFinite`].
pub const NOT_FINITE: u32 = u32::MAX;
/// A temperature below this counts as 0: it could not distinguish neighbouring f32 logits.
const COLDEST: f32 = 1e-6;

/// How the tokens of one sequence are chosen. The default is greedy.
///
/// The steps come in this order: repetition penalty, temperature, top-k, top-p, min-p, random choice. A token must pass
/// all filters that are on. Top-p takes its share of what top-k leaves. Equal logits are kept or dropped together. With
/// temperature 0 the filters have no effect.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Logits are divided by the temperature: 0 (greedy) to 100. At 0 the largest logit wins; of equal logits, the one
    /// with the lowest id.
    pub temperature: f32,
    /// Keep the tokens whose logit is at least the k-th largest; 0 is off.
    pub top_k: u32,
    /// Keep the most probable tokens until their probabilities add up to this: 0 to 1, 1 is off. The most probable
    /// token is always kept.
    pub top_p: f32,
    /// Keep the tokens with at least this fraction of the largest probability: 0 (off) to 1.
    pub min_p: f32,
    /// For tokens that the sequence contains already, positive logits are divided by this and negative logits are
    /// multiplied by it: 0.1 to 10, 1 is off.
    pub repetition_penalty: f32,
    /// The same seed, prompt and model give the same text.
    pub seed: u64,
}

impl Default for Sampling {
    fn default() -> Self {
        Sampling { temperature: 0.0, top_k: 0, top_p: 1.0, min_p: 0.0, repetition_penalty: 1.0, seed: 0 }
    }
}

impl Sampling {
    /// Checks every field against its range.
    ///
    /// # Errors
    /// [`Error::Parameter`] for the first field that is out of its range or not a number.
    pub fn validate(&self) -> Result<()> {
        let ranges = [
            ("temperature", self.temperature, 0.0, 100.0),
            ("top_p", self.top_p, 0.0, 1.0),
            ("min_p", self.min_p, 0.0, 1.0),
            ("repetition_penalty", self.repetition_penalty, 0.1, 10.0),
        ];
        match ranges.into_iter().find(|(_, value, low, high)| !(low..=high).contains(&value)) {
            Some((name, value, low, high)) => {
                Err(Error::Parameter { name, why: format!("{value} is not a number from {low} to {high}") })
            }
            None => Ok(()),
        }
    }

    /// The device layout: temperature, top_k, top_p, min_p, repetition_penalty, low and high half of the seed,
    /// 1 / repetition_penalty.
    pub fn words(&self) -> [u32; SAMPLING_WORDS as usize] {
        let temperature = if self.temperature < COLDEST { 0.0 } else { self.temperature };
        [
            temperature.to_bits(),
            self.top_k,
            self.top_p.to_bits(),
            self.min_p.to_bits(),
            self.repetition_penalty.to_bits(),
            self.seed as u32,
            (self.seed >> 32) as u32,
            // Kernels multiply by this, because multiplications round alike on all devices and divisions may not.
            (1.0 / self.repetition_penalty).to_bits(),
        ]
    }

    /// Reads the device layout back.
    pub(crate) fn from_words(words: &[u32]) -> Sampling {
        Sampling {
            temperature: f32::from_bits(words[0]),
            top_k: words[1],
            top_p: f32::from_bits(words[2]),
            min_p: f32::from_bits(words[3]),
            repetition_penalty: f32::from_bits(words[4]),
            seed: u64::from(words[6]) << 32 | u64::from(words[5]),
        }
    }
}

/// Words of one slot's [`seen`] bits.
pub const fn seen_words(vocab: u32) -> u64 {
    vocab.div_ceil(32) as u64
}

/// One bit for each token id, set for `tokens`. The repetition penalty uses them. Ids of `vocab` and above are
/// ignored.
pub fn seen(vocab: u32, tokens: &[u32]) -> Vec<u32> {
    let mut bits = vec![0; seen_words(vocab) as usize];
    for &token in tokens.iter().filter(|&&token| token < vocab) {
        bits[token as usize / 32] |= 1 << (token % 32);
    }
    bits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_checked() {
        let base = Sampling::default();
        base.validate().unwrap();
        let best = Sampling { temperature: 100.0, top_k: u32::MAX, top_p: 0.0, min_p: 1.0, ..base };
        best.validate().unwrap();
        for (name, wrong) in [
            ("temperature", Sampling { temperature: -0.1, ..base }),
            ("temperature", Sampling { temperature: f32::NAN, ..base }),
            ("temperature", Sampling { temperature: f32::INFINITY, ..base }),
            ("top_p", Sampling { top_p: 1.1, ..base }),
            ("top_p", Sampling { top_p: f32::NAN, ..base }),
            ("min_p", Sampling { min_p: -1e-9, ..base }),
            ("repetition_penalty", Sampling { repetition_penalty: 0.0, ..base }),
            ("repetition_penalty", Sampling { repetition_penalty: f32::NEG_INFINITY, ..base }),
        ] {
            match wrong.validate() {
                Err(Error::Parameter { name: found, .. }) => assert_eq!(found, name),
                other => panic!("{wrong:?}: {other:?}"),
            }
        }
    }

    #[test]
    fn words_come_back() {
        let all = Sampling {
            temperature: 0.7,
            top_k: 40,
            top_p: 0.9,
            min_p: 0.05,
            repetition_penalty: 1.3,
            seed: 0x0123_4567_89ab_cdef,
        };
        assert_eq!(Sampling::from_words(&all.words()), all);
        let cold = Sampling { temperature: 1e-7, ..all };
        assert_eq!(Sampling::from_words(&cold.words()).temperature, 0.0);
    }

    #[test]
    fn seen_bits() {
        assert_eq!(seen(33, &[0, 31, 32, 33, 0]), [1 | 1 << 31, 1]);
        assert_eq!(seen(32, &[]), [0]);
    }
}
