//! Statistics of samples, and warnings about what makes them less certain.

use crate::describe::SHORT;
use crate::report::{Kind, Percentiles, Summary};

/// Number of bootstrap samples for the interval of a median.
const RESAMPLES: usize = 2000;
/// A run is an outlier if it is this many standard deviations off the median. The standard deviation is computed from
/// the median absolute deviation.
const DEVIATIONS: f64 = 5.0;
/// An outlier must also differ from the median by this share of it, so that runs that are almost equal have no
/// outliers.
const APART: f64 = 0.05;
/// Standard deviation divided by median absolute deviation, for a normal distribution.
const MAD: f64 = 1.4826;
/// The fewest runs that can be compared with each other.
const FEW: usize = 5;

/// The samples in ascending order.
fn sorted(samples: &[f64]) -> Vec<f64> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}

/// The middle of ascending numbers, or the mean of the two in the middle.
fn middle(sorted: &[f64]) -> f64 {
    let half = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[half] } else { (sorted[half - 1] + sorted[half]) / 2.0 }
}

fn median(samples: &[f64]) -> f64 {
    middle(&sorted(samples))
}

impl Summary {
    /// Statistics of some samples. `None` if there are none. The interval is the same in every run of the program,
    /// because its random numbers have a fixed seed.
    pub fn of(samples: &[f64]) -> Option<Summary> {
        if samples.is_empty() {
            return None;
        }
        let count = samples.len() as f64;
        let mean = samples.iter().sum::<f64>() / count;
        let squares: f64 = samples.iter().map(|sample| (sample - mean).powi(2)).sum();
        let sd = (squares / (count - 1.0).max(1.0)).sqrt();
        let mut random = Random(0);
        let medians = (0..RESAMPLES).map(|_| {
            let draw = samples.iter().map(|_| samples[random.below(samples.len())]);
            median(&draw.collect::<Vec<_>>())
        });
        let medians = sorted(&medians.collect::<Vec<_>>());
        let at = |share: f64| medians[(share * (RESAMPLES - 1) as f64).round() as usize];
        Some(Summary { mean, sd, median: median(samples), low: at(0.025), high: at(0.975) })
    }
}

impl Percentiles {
    /// Percentiles of some samples by nearest rank: the smallest sample such that at least that share of the samples is
    /// not above it. `None` if there are none.
    pub fn of(samples: &[f64]) -> Option<Percentiles> {
        let sorted = sorted(samples);
        let max = *sorted.last()?;
        let at = |share: f64| sorted[(share * sorted.len() as f64).ceil().max(1.0) as usize - 1];
        Some(Percentiles { p50: at(0.5), p90: at(0.9), p99: at(0.99), max })
    }
}

/// SplitMix64: good enough to draw samples.
struct Random(u64);

impl Random {
    fn below(&mut self, most: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((u128::from(z ^ (z >> 31)) * most as u128) >> 64) as usize
    }
}

/// Warnings about suspicious times of runs, in their order, each with what to do about it. There are none for loading
/// and compiling: these wait for disks, drivers and their caches, and no device gets hot.
pub fn warnings(kind: Kind, seconds: &[f64]) -> Vec<String> {
    let mut warnings = vec![];
    if matches!(kind, Kind::Load | Kind::Compile) {
        return warnings;
    }
    let count = seconds.len();
    let middle = if count < FEW { 0.0 } else { median(seconds) };
    if middle == 0.0 {
        return warnings;
    }
    // Runs that get slower: each run of the last third took longer than each run of the first third.
    let (first, last) = (&seconds[..count / 3], &seconds[count - count / 3..]);
    let slower = median(last) / median(first).max(SHORT) - 1.0;
    let above = last.iter().all(|late| first.iter().all(|early| late > early));
    if above && slower > APART {
        warnings.push(format!(
            "the last runs are {:.0} % slower than the first: the device may be throttling. Let it cool, or use fewer \
             repetitions",
            slower * 100.0
        ));
        return warnings;
    }
    let deviation = MAD * median(&seconds.iter().map(|sample| (sample - middle).abs()).collect::<Vec<_>>());
    let off = |sample: &&f64| (**sample - middle).abs() > (DEVIATIONS * deviation).max(APART * middle);
    let outliers: Vec<f64> = seconds.iter().filter(off).copied().collect();
    if let Some(worst) = outliers.iter().copied().max_by(|a, b| (a - middle).abs().total_cmp(&(b - middle).abs())) {
        let is = if outliers.len() == 1 { "is" } else { "are" };
        let way = if worst > middle { "slower" } else { "faster" };
        warnings.push(format!(
            "{} of {count} runs {is} far from the others, by up to {:.0} % {way} than the median: something else may \
             use this machine. Close other programs and measure again, or use more repetitions",
            outliers.len(),
            (worst / middle - 1.0).abs() * 100.0
        ));
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summaries_of_known_samples() {
        let summary = Summary::of(&[2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0]).unwrap();
        assert_eq!((summary.mean, summary.median), (5.0, 4.5));
        // The squares of the distances add up to 32, divided by n - 1.
        assert!((summary.sd - (32f64 / 7.0).sqrt()).abs() < 1e-12);
        assert_eq!(Summary::of(&[]), None);
        let one = Summary { mean: 3.0, sd: 0.0, median: 3.0, low: 3.0, high: 3.0 };
        assert_eq!(Summary::of(&[3.0]), Some(one));
        assert_eq!(Summary::of(&[3.0; 9]), Some(one));
        // The order of the samples does not matter.
        assert_eq!(Summary::of(&[3.0, 1.0, 2.0]).map(|s| s.median), Some(2.0));
    }

    /// By the binomial distribution, the median of 9 samples lies between the 2nd and the 8th of them with a
    /// probability of 96 %, whatever the distribution of the samples. A second computation gives the same interval.
    #[test]
    fn the_interval_is_that_of_order_statistics() {
        let samples: Vec<f64> = (1..=9).map(f64::from).collect();
        let summary = Summary::of(&samples).unwrap();
        assert!((2.0..=3.0).contains(&summary.low) && (7.0..=8.0).contains(&summary.high), "{summary:?}");
        assert_eq!(Summary::of(&samples), Some(summary));
        // Four times as many samples give half the interval.
        let more: Vec<f64> = (1..=36).map(|i| f64::from(i) / 4.0).collect();
        let narrow = Summary::of(&more).unwrap();
        let ratio = (summary.high - summary.low) / (narrow.high - narrow.low);
        assert!((1.5..2.7).contains(&ratio), "{summary:?} {narrow:?}");
        // A far outlier moves the mean, but not the ends of the interval by as much.
        let mut far = samples.clone();
        far[8] = 1000.0;
        let far = Summary::of(&far).unwrap();
        assert!(far.mean > 100.0 && far.high < 10.0, "{far:?}");
    }

    #[test]
    fn percentiles_are_samples() {
        let hundred: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        let all = |p50, p90, p99, max| Some(Percentiles { p50, p90, p99, max });
        assert_eq!(Percentiles::of(&hundred), all(50.0, 90.0, 99.0, 100.0));
        assert_eq!(Percentiles::of(&[1.0, 2.0, 3.0]), all(2.0, 3.0, 3.0, 3.0));
        assert_eq!(Percentiles::of(&[7.0]), all(7.0, 7.0, 7.0, 7.0));
        assert_eq!(Percentiles::of(&[]), None);
    }

    #[test]
    fn what_is_suspicious_is_said() {
        let said = |seconds: &[f64], word: &str| {
            let warnings = warnings(Kind::Decode, seconds);
            assert!(warnings.len() == 1 && warnings[0].contains(word), "{seconds:?}: {warnings:?}");
        };
        said(&[1.0, 1.01, 1.0, 0.99, 1.0, 1.5], "1 of 6 runs is far from the others, by up to 50 % slower");
        said(&[1.0, 1.01, 0.4, 0.99, 1.0], "60 % faster");
        said(&[1.0, 1.01, 1.05, 1.09, 1.1, 1.13], "11 % slower than the first");
        // Negative controls: noise, equal runs, a small step, a run that is slightly off, and too few runs.
        for fine in [
            &[1.0, 1.02, 0.98, 1.01, 0.99, 1.03][..],
            &[1.0; 8],
            &[1.0, 1.0, 1.0, 1.0, 1.04],
            &[1.0, 1.01, 1.02, 1.03, 1.04],
            &[1.0, 2.0, 3.0, 4.0],
            &[],
        ] {
            assert!(warnings(Kind::Decode, fine).is_empty(), "{fine:?}: {:?}", warnings(Kind::Decode, fine));
        }
        // A load that gets slower says nothing about the device.
        assert!(warnings(Kind::Load, &[1.0, 1.01, 1.05, 1.09, 1.1, 1.13]).is_empty());
    }
}
