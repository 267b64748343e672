//! How many times as fast one device is as another: a ratio of medians with its interval, and its meaning in words.

use serde::Serialize;

/// Fewest samples on each side that allow a verdict. If two devices are equal, all samples of one are faster than all samples
/// of the other by chance: in 3 % of cases with four samples each, and in 10 % of cases with three.
pub const ENOUGH: usize = 4;
/// Smaller relative differences are called "no difference".
const LEAST: f64 = 0.005;
/// Number of bootstrap draws.
const DRAWS: usize = 2000;
/// Seed of the draws. It is fixed, so that the same files give the same report.
const SEED: u64 = 1;

/// How many times as fast a device is as the one that it is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Ratio {
    /// Ratio of the medians.
    pub times: f64,
    /// Lower end of the 95 % bootstrap interval of the ratio.
    pub low: f64,
    /// Upper end of the interval.
    pub high: f64,
    /// Whether there are [`ENOUGH`] samples on both sides for a verdict.
    pub sure: bool,
}

impl Ratio {
    /// Speed of `this` relative to `base`. Both are raw samples in seconds. None if either has no samples.
    pub fn of(base: &[f64], this: &[f64]) -> Option<Ratio> {
        if base.is_empty() || this.is_empty() {
            return None;
        }
        let mut random = fastrand::Rng::with_seed(SEED);
        let mut again =
            |samples: &[f64]| median(samples.iter().map(|_| samples[random.usize(..samples.len())]).collect());
        let mut drawn: Vec<f64> = (0..DRAWS).map(|_| again(base) / again(this)).collect();
        drawn.sort_by(f64::total_cmp);
        let at = |share: f64| drawn[(share * (DRAWS - 1) as f64).round() as usize];
        let sure = base.len().min(this.len()) >= ENOUGH;
        Some(Ratio { times: median(base.to_vec()) / median(this.to_vec()), low: at(0.025), high: at(0.975), sure })
    }

    /// Whether the interval excludes 1, by more than the smallest difference that is reported.
    pub fn differs(&self) -> bool {
        self.sure && (self.low > 1.0 + LEAST || self.high < 1.0 - LEAST)
    }

    /// The verdict: `1.8x faster (1.7 to 1.9)`, `no difference (0.97x to 1.02x)`, or `1.8x, too few samples to tell`.
    pub fn words(&self) -> String {
        let Ratio { times, low, high, sure } = *self;
        let slower = self.differs() && high < 1.0;
        let [times, low, high] = if slower { [times, high, low].map(f64::recip) } else { [times, low, high] };
        let [t, l, h] = [times, low, high].map(|x| rounded(x, times));
        match (sure, self.differs(), slower) {
            (false, ..) => format!("{t}x, too few samples to tell"),
            (_, false, _) => format!("no difference ({l}x to {h}x)"),
            (.., false) => format!("{t}x faster ({l} to {h})"),
            (.., true) => format!("{t}x slower ({l} to {h})"),
        }
    }
}

/// A ratio with as many digits as are meaningful for measured times.
pub fn digits(ratio: f64) -> String {
    rounded(ratio, ratio)
}

/// Two decimals if `size` is below 2, one below 100, and none from 100 on.
fn rounded(ratio: f64, size: f64) -> String {
    match size {
        x if x < 1.995 => format!("{ratio:.2}"),
        x if x < 99.95 => format!("{ratio:.1}"),
        _ => crate::html::units::thousands(ratio),
    }
}

/// The median; NaN for an empty list.
fn median(mut values: Vec<f64>) -> f64 {
    let n = values.len();
    if n == 0 {
        return f64::NAN;
    }
    let (below, &mut upper, _) = values.select_nth_unstable_by(n / 2, f64::total_cmp);
    match n % 2 {
        1 => upper,
        _ => (below.iter().copied().fold(f64::NEG_INFINITY, f64::max) + upper) / 2.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLOW: [f64; 5] = [1.80, 1.81, 1.79, 1.80, 1.82];
    const FAST: [f64; 5] = [1.00, 1.01, 0.99, 1.00, 1.02];

    #[test]
    fn what_differs_differs_both_ways() {
        let faster = Ratio::of(&SLOW, &FAST).unwrap();
        assert!(faster.differs() && faster.low > 1.7 && faster.high < 1.9);
        assert_eq!(faster.words(), format!("1.80x faster ({:.2} to {:.2})", faster.low, faster.high));
        let slower = Ratio::of(&FAST, &SLOW).unwrap();
        assert!(slower.differs() && slower.words().starts_with("1.80x slower (1.7"), "{}", slower.words());
    }

    /// Negative control: samples that overlap, and too few samples.
    #[test]
    fn what_does_not_differ_is_said_plainly() {
        let same = Ratio::of(&[1.0, 1.1, 0.9, 1.05, 0.95], &[1.02, 0.93, 1.08, 0.99, 1.01]).unwrap();
        assert!(!same.differs() && same.words().starts_with("no difference (0."), "{}", same.words());
        let equal = Ratio::of(&FAST, &FAST).unwrap();
        assert!(!equal.differs() && equal.times == 1.0);
        let few = Ratio::of(&SLOW[..3], &FAST[..3]).unwrap();
        assert_eq!(few.words(), "1.80x, too few samples to tell");
        assert_eq!(Ratio::of(&[], &FAST), None);
    }

    #[test]
    fn the_same_samples_give_the_same_interval() {
        assert_eq!(Ratio::of(&SLOW, &FAST), Ratio::of(&SLOW, &FAST));
    }

    /// A 95 % interval may exclude 1 for about one pair of equal devices in twenty.
    #[test]
    fn equal_devices_seldom_differ() {
        let mut random = fastrand::Rng::with_seed(7);
        let mut samples = || (0..8).map(|_| 1.0 + 0.1 * random.f64()).collect::<Vec<f64>>();
        let told = (0..200).filter(|_| Ratio::of(&samples(), &samples()).unwrap().differs()).count();
        assert!(told <= 16, "{told} of 200");
    }
}
