//! Chooses how many rows of a prompt go into one step. A step must not keep the device for long, so that a request to
//! stop is heard soon.

use crate::ops::MATVEC_ROWS;

/// A function that returns seconds since any fixed moment. The core has no clock of its own; a caller can lend one.
pub type Clock = fn() -> f64;

/// Rows of the first step, on a device of unknown speed.
const FIRST: u32 = 64;
/// Seconds that a step may take. If it takes longer, the next steps are made shorter. If steps of twice the rows would
/// take three quarters of it, the next steps are made longer. Watchdogs of drivers allow one
/// or two seconds.
const LONG: f64 = 0.1;
/// Seconds that a step may take if it has only as many rows as the matrix-vector kernels take. A single row takes at
/// least half of that time, so fewer rows would not help.
const FEW_LONG: f64 = 0.25;

/// Seconds that a step may take if shorter steps take hardly less time. This happens behind a long text, where few rows
/// leave most of a device idle.
const WORST: f64 = 0.5;
/// The share of its time that a step must save when its rows are halved or more. Otherwise the cut is undone.
const SAVED: f64 = 0.3;

/// Measures how long steps take, and chooses the rows of the next one.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    clock: Option<Clock>,
    most: u32,
    rows: u32,
    /// Rows and seconds of the step that was just cut.
    cut: Option<(u32, f64)>,
    /// Cutting steps of at most this many rows has saved no time.
    idle: u32,
}

impl Pace {
    /// Chooses at most `most` rows, and without a clock always `most`.
    pub fn new(clock: Option<Clock>, most: u32) -> Pace {
        Pace { clock, most, rows: if clock.is_some() { most.min(FIRST) } else { most }, cut: None, idle: 0 }
    }

    /// The most rows of a step.
    pub fn most(&self) -> u32 {
        self.most
    }

    /// Rows of the next step.
    pub fn rows(&self) -> usize {
        self.rows as usize
    }

    /// The moment before a step.
    pub fn begin(&self) -> f64 {
        self.clock.map_or(0.0, |clock| clock())
    }

    /// Reports that a step of `rows` rows, which began at `begin`, has ended. A step with few rows says nothing about
    /// long ones, unless it took long itself.
    pub fn end(&mut self, rows: usize, begin: f64) {
        let Some(clock) = self.clock else { return };
        let seconds = (clock() - begin).max(1e-6);
        // Forgets that cuts saved nothing. A step that takes too long is cut in any case, and after a short step the
        // text is short again.
        if seconds > WORST || (seconds <= LONG && rows == self.rows()) {
            self.idle = 0;
        }
        if seconds <= WORST
            && rows == self.rows()
            && let Some((before, took)) = self.cut.take()
            && took < WORST
            && seconds > (1.0 - SAVED) * took
        {
            (self.rows, self.idle) = (before, before);
            return;
        }
        if seconds > LONG && rows as u32 <= self.idle {
            return;
        }
        // A cut makes steps shorter than they need to be, so that the next one need not be cut again.
        let fitting = rows as f64 * if seconds > LONG { LONG / 2.0 } else { 0.75 * LONG } / seconds;
        if seconds > LONG || (rows == self.rows() && fitting >= 2.0 * rows as f64) {
            let least = if seconds < FEW_LONG { MATVEC_ROWS.min(rows as u32).max(1) } else { 1 };
            let fitting = (fitting as u32).clamp(least, (8 * self.rows).max(least)).min(self.most);
            // Rounded down to a power of two, like the rows of plans and tiles.
            let fitting = if fitting == self.most { fitting } else { 1 << fitting.ilog2() };
            self.cut = (2 * fitting <= rows as u32).then_some((rows as u32, seconds));
            self.rows = fitting;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

    static MILLISECONDS: AtomicU64 = AtomicU64::new(0);

    fn now() -> f64 {
        MILLISECONDS.load(Relaxed) as f64 / 1e3
    }

    fn step(pace: &mut Pace, rows: usize, seconds: f64) -> usize {
        let begin = pace.begin();
        MILLISECONDS.fetch_add((seconds * 1e3) as u64, Relaxed);
        pace.end(rows, begin);
        pace.rows()
    }

    #[test]
    fn steps_take_half_of_what_is_long() {
        let mut pace = Pace::new(Some(now), 512);
        assert_eq!(pace.rows(), 64);
        // A fast device runs steps of full length after the first step. A slower one gets as many rows as take 50 ms.
        assert_eq!(step(&mut pace, 64, 0.004), 512);
        assert_eq!(step(&mut pace, 512, 0.09), 512);
        assert_eq!(step(&mut pace, 512, 0.4), 64);
        assert_eq!(step(&mut pace, 64, 0.05), 64);
        // Eight rows are not cut unless they take very long.
        assert_eq!(step(&mut pace, 64, 0.4), 8);
        assert_eq!(step(&mut pace, 8, 0.24), 8);
        assert_eq!(step(&mut pace, 8, 0.3), 1);
        assert_eq!(step(&mut pace, 1, 0.001), 8);
        assert_eq!(step(&mut pace, 8, 0.006), 64);
        // The last step of a prompt is short and says nothing. A step that takes too long with any number of rows ends
        // at one row.
        assert_eq!(step(&mut pace, 3, 0.05), 64);
        assert_eq!(step(&mut pace, 64, 6.4), 1);
        assert_eq!(step(&mut pace, 1, 0.1), 1);
        assert_eq!(step(&mut pace, 1, 0.001), 8);
        assert_eq!(step(&mut pace, 8, 0.0), 64);

        // A cut that saves no time is undone, until a step takes too long.
        let mut deep = Pace::new(Some(now), 512);
        assert_eq!(step(&mut deep, 64, 0.004), 512);
        assert_eq!(step(&mut deep, 512, 0.19), 128);
        assert_eq!(step(&mut deep, 128, 0.18), 512);
        assert_eq!(step(&mut deep, 512, 0.22), 512);
        assert_eq!(step(&mut deep, 512, 0.45), 512);
        assert_eq!(step(&mut deep, 512, 0.6), 32);
        assert_eq!(step(&mut deep, 32, 0.38), 4);
        assert_eq!(step(&mut deep, 4, 0.01), 16);
        // The next text is short, and its steps are cut as before.
        let mut again = Pace::new(Some(now), 512);
        assert_eq!(step(&mut again, 64, 0.004), 512);
        assert_eq!(step(&mut again, 512, 0.19), 128);
        assert_eq!(step(&mut again, 128, 0.18), 512);
        assert_eq!(step(&mut again, 512, 0.06), 512);
        assert_eq!(step(&mut again, 512, 0.19), 128);
        // A cut that saves time is kept.
        let mut near = Pace::new(Some(now), 512);
        assert_eq!(step(&mut near, 64, 0.004), 512);
        assert_eq!(step(&mut near, 512, 0.19), 128);
        assert_eq!(step(&mut near, 128, 0.06), 128);

        let mut still = Pace::new(None, 100);
        assert_eq!((still.rows(), step(&mut still, 100, 9.0)), (100, 100));
    }
}
