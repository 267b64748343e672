//! The paper's law, L(D, W) = L0 + a D^-alpha + b W^-beta (spec 7.4), fitted to losses of trained models.
//!
//! With given exponents, the fit is linear least squares with three unknowns that must not be below 0. So only the two
//! exponents are searched: on a grid, which is then narrowed around its best point. Such a search always ends, and it has
//! simple bounds.

use super::points::Point;
use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};

/// Fewest points for a fit: one more than there are constants.
const FEWEST: usize = 6;
/// Fewest different depths and widths: with two, an exponent can be anything.
const DIFFERENT: usize = 3;
/// Range in which exponents are searched.
pub const BOUNDS: [f64; 2] = [0.05, 4.0];
/// Number of exponents on each axis of the grid.
const GRID: usize = 33;
/// Number of searches. Each one narrows the grid to a quarter.
const ROUNDS: usize = 14;
/// Most groups of points for the test in which each group is left out once.
const PARTS: usize = 20;

/// A fitted law.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Law {
    /// The loss that neither depth nor width lowers.
    pub l0: f64,
    /// Factor of the depth's term.
    pub a: f64,
    /// Exponent of the depth.
    pub alpha: f64,
    /// Factor of the width's term.
    pub b: f64,
    /// Exponent of the width.
    pub beta: f64,
    /// Share of the losses' variance that the law explains.
    pub r2: f64,
    /// Root of the mean squared error, in units of the loss.
    pub rmse: f64,
    /// Relative errors of points that were left out of the fit and predicted by it: the largest, and the mean.
    pub left_out: [f64; 2],
    /// The points, each with the law's prediction.
    pub points: Vec<Told>,
    /// Warnings about what makes the law less certain.
    pub warnings: Vec<String>,
}

/// A point, with the loss that the law predicts for it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Told {
    pub depth: f64,
    pub width: f64,
    pub loss: f64,
    pub predicted: f64,
}

/// The constants of the law for depth and width that are divided by their geometric means. Then the constants have similar
/// sizes.
#[derive(Clone, Copy, Debug)]
struct Constants {
    l0: f64,
    a: f64,
    alpha: f64,
    b: f64,
    beta: f64,
    /// Sum of squared errors.
    squares: f64,
}

impl Constants {
    fn loss(&self, x: f64, y: f64) -> f64 {
        self.l0 + self.a * x.powf(-self.alpha) + self.b * y.powf(-self.beta)
    }
}

impl Law {
    /// The loss that the law predicts for a depth and a width.
    pub fn loss(&self, depth: f64, width: f64) -> f64 {
        self.l0 + self.a * depth.powf(-self.alpha) + self.b * width.powf(-self.beta)
    }

    /// Fits the law to points.
    ///
    /// # Errors
    /// If there are too few points to determine five constants.
    pub fn fit(points: &[Point]) -> Result<Law> {
        let count = |of: fn(&Point) -> f64| {
            let mut all: Vec<f64> = points.iter().map(of).collect();
            all.sort_by(f64::total_cmp);
            all.dedup();
            all.len()
        };
        let (depths, widths) = (count(|point| point.depth), count(|point| point.width));
        if points.len() < FEWEST || depths < DIFFERENT || widths < DIFFERENT {
            bail!(
                "--points has {} points of {depths} depths and {widths} widths, too few for the law's five constants. Give at \
                 least {FEWEST}, of {DIFFERENT} depths and {DIFFERENT} widths",
                points.len()
            );
        }
        let scale = |of: fn(&Point) -> f64| {
            (points.iter().map(|point| of(point).ln()).sum::<f64>() / points.len() as f64).exp()
        };
        let (depth, width) = (scale(|point| point.depth), scale(|point| point.width));
        let near: Vec<[f64; 3]> =
            points.iter().map(|point| [point.depth / depth, point.width / width, point.loss]).collect();
        let found = search(&near);
        let mean = near.iter().map(|[.., loss]| loss).sum::<f64>() / near.len() as f64;
        let spread: f64 = near.iter().map(|[.., loss]| (loss - mean).powi(2)).sum();
        let mut law = Law {
            l0: found.l0,
            a: found.a * depth.powf(found.alpha),
            alpha: found.alpha,
            b: found.b * width.powf(found.beta),
            beta: found.beta,
            r2: if spread > 0.0 { 1.0 - found.squares / spread } else { 0.0 },
            rmse: (found.squares / near.len() as f64).sqrt(),
            left_out: left_out(&near),
            points: vec![],
            warnings: vec![],
        };
        let told =
            |&Point { depth, width, loss }: &Point| Told { depth, width, loss, predicted: law.loss(depth, width) };
        law.points = points.iter().map(told).collect();
        law.warnings = warnings(&law);
        Ok(law)
    }
}

/// Warnings about a fit. Each says what to do about it.
fn warnings(law: &Law) -> Vec<String> {
    let mut warnings = vec![];
    if law.r2 < 0.9 {
        warnings.push(format!(
            "the law explains {:.0} % of the losses' variance: it does not describe these points. Do not choose a stack by it",
            (law.r2 * 100.0).max(0.0)
        ));
    }
    for (name, factor, exponent) in [("depth", law.a, law.alpha), ("width", law.b, law.beta)] {
        let [low, high] = BOUNDS.map(|bound| (exponent / bound - 1.0).abs() < 1e-3);
        if factor == 0.0 {
            warnings.push(format!(
                "in these points, more {name} does not lower the loss. Give points that differ more in it"
            ));
        } else if low || high {
            warnings.push(format!(
                "the exponent of {name} is at its bound, {exponent:.2}: these points do not determine it. Give points that \
                 differ more in {name}"
            ));
        }
    }
    if law.l0 == 0.0 {
        warnings.push("the constant L0 is at its bound, 0: do not use the law far from these points".into());
    }
    warnings
}

/// Relative errors of predictions for points that were left out of the fit: (largest, mean). If there are many points, several
/// are left out at a time.
fn left_out(points: &[[f64; 3]]) -> [f64; 2] {
    let parts = points.len().min(PARTS);
    let mut errors = vec![];
    for part in 0..parts {
        let split =
            |inside: bool| (0..).zip(points).filter(move |(at, _)| (at % parts == part) == inside).map(|(_, p)| *p);
        let rest: Vec<[f64; 3]> = split(false).collect();
        let found = search(&rest);
        errors.extend(split(true).map(|[x, y, loss]| (found.loss(x, y) / loss - 1.0).abs()));
    }
    let mean = errors.iter().sum::<f64>() / errors.len().max(1) as f64;
    [errors.into_iter().fold(0.0, f64::max), mean]
}

/// The best constants for points of (depth, width, loss).
fn search(points: &[[f64; 3]]) -> Constants {
    // The grid is even in the logarithms of the exponents.
    let [low, high] = BOUNDS.map(f64::ln);
    let mut best: Option<Constants> = None;
    let (mut middle, mut half) = ([(low + high) / 2.0; 2], (high - low) / 2.0);
    for _ in 0..ROUNDS {
        let exponents = |middle: f64| {
            let at = move |i: usize| middle + half * (2.0 * i as f64 / (GRID - 1) as f64 - 1.0);
            let mut all: Vec<f64> = (0..GRID).map(|i| at(i).clamp(low, high).exp()).collect();
            all.dedup();
            all
        };
        for alpha in exponents(middle[0]) {
            for beta in exponents(middle[1]) {
                let found = linear(points, alpha, beta);
                if best.is_none_or(|best| found.squares < best.squares) {
                    best = Some(found);
                }
            }
        }
        if let Some(best) = best {
            middle = [best.alpha.ln(), best.beta.ln()];
        }
        half /= 4.0;
    }
    best.unwrap_or_else(|| linear(points, 1.0, 1.0))
}

/// The best other constants for given exponents, none below 0. All choices of which constants are 0 are tried, and the best fit
/// that has no negative constant is taken.
fn linear(points: &[[f64; 3]], alpha: f64, beta: f64) -> Constants {
    let mut products = [[0.0; 4]; 4];
    for &[x, y, loss] in points {
        let row = [1.0, x.powf(-alpha), y.powf(-beta), loss];
        for (i, line) in products.iter_mut().enumerate() {
            for (j, sum) in line.iter_mut().enumerate() {
                *sum += row[i] * row[j];
            }
        }
    }
    let mut best = Constants { l0: 0.0, a: 0.0, alpha, b: 0.0, beta, squares: products[3][3] };
    for choice in 1..8usize {
        let columns: Vec<usize> = (0..3).filter(|column| choice >> column & 1 == 1).collect();
        let Some(found) = solve(&products, &columns) else { continue };
        if found.iter().any(|value| *value < 0.0) {
            continue;
        }
        let mut all = [0.0; 3];
        columns.iter().zip(found).for_each(|(column, value)| all[*column] = value);
        let mut constants = Constants { l0: all[0], a: all[1], b: all[2], ..best };
        let error = |[x, y, loss]: &[f64; 3]| (constants.loss(*x, *y) - loss).powi(2);
        constants.squares = points.iter().map(error).sum();
        if constants.squares < best.squares {
            best = constants;
        }
    }
    best
}

/// Solves the normal equations of these columns by Gaussian elimination with pivoting. None if the columns are linearly
/// dependent.
fn solve(products: &[[f64; 4]; 4], columns: &[usize]) -> Option<Vec<f64>> {
    let size = columns.len();
    let mut rows: Vec<Vec<f64>> =
        columns.iter().map(|&i| columns.iter().map(|&j| products[i][j]).chain([products[i][3]]).collect()).collect();
    for at in 0..size {
        let pivot = (at..size).max_by(|&i, &j| rows[i][at].abs().total_cmp(&rows[j][at].abs()))?;
        rows.swap(at, pivot);
        if rows[at][at].abs() <= 1e-12 * products[columns[at]][columns[at]] {
            return None;
        }
        let (above, below) = rows.split_at_mut(at + 1);
        for row in below {
            let times = row[at] / above[at][at];
            row.iter_mut().zip(&above[at]).skip(at).for_each(|(value, pivot)| *value -= times * pivot);
        }
    }
    let mut found = vec![0.0; size];
    for at in (0..size).rev() {
        let known: f64 = (at + 1..size).map(|column| rows[at][column] * found[column]).sum();
        found[at] = (rows[at][size] - known) / rows[at][at];
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRUE: Law = Law {
        l0: 2.0,
        a: 3.0,
        alpha: 0.9,
        b: 60.0,
        beta: 0.6,
        r2: 1.0,
        rmse: 0.0,
        left_out: [0.0; 2],
        points: vec![],
        warnings: vec![],
    };

    /// The paper's depths with three widths each. `noise` is relative, and the same at each call.
    fn points(noise: f64) -> Vec<Point> {
        let mut random = fastrand::Rng::with_seed(7);
        let mut points = vec![];
        for depth in [6.0, 12.0, 18.0, 24.0, 30.0] {
            for width in [512.0, 1024.0, 2048.0] {
                let off = 1.0 + noise * (random.f64() * 2.0 - 1.0);
                points.push(Point { depth, width, loss: TRUE.loss(depth, width) * off });
            }
        }
        points
    }

    #[test]
    fn known_constants_are_found() {
        let law = Law::fit(&points(0.0)).unwrap();
        for (found, wanted) in [
            (law.l0, TRUE.l0),
            (law.a, TRUE.a),
            (law.alpha, TRUE.alpha),
            (law.b, TRUE.b),
            (law.beta, TRUE.beta),
            (law.r2, 1.0),
        ] {
            assert!((found / wanted - 1.0).abs() < 0.01, "{found}, not {wanted}: {law:?}");
        }
        assert!(law.rmse < 1e-4 && law.left_out[0] < 1e-3 && law.warnings.is_empty(), "{law:?}");
    }

    #[test]
    fn noise_does_little_and_is_told() {
        let law = Law::fit(&points(0.005)).unwrap();
        assert!(law.r2 > 0.98 && law.left_out[0] > 1e-4 && law.left_out[0] < 0.02, "{law:?}");
        // Inside the range of the points, the predictions are good even if the constants are off.
        for (depth, width) in [(9.0, 700.0), (20.0, 1500.0), (27.0, 600.0)] {
            assert!((law.loss(depth, width) / TRUE.loss(depth, width) - 1.0).abs() < 0.01, "{law:?}");
        }
    }

    /// Negative controls: losses that do not depend on depth and width, losses that grow with depth, and losses that are all
    /// equal.
    #[test]
    fn what_is_no_law_is_said() {
        let mut random = fastrand::Rng::with_seed(3);
        let noise: Vec<Point> =
            points(0.0).into_iter().map(|point| Point { loss: 3.0 + random.f64(), ..point }).collect();
        let law = Law::fit(&noise).unwrap();
        assert!(law.r2 < 0.7 && law.warnings[0].contains("does not describe these points"), "{law:?}");
        // Here the loss grows with depth, which the law cannot describe.
        let worse: Vec<Point> = points(0.0).into_iter().map(|p| Point { loss: 3.0 + p.depth, ..p }).collect();
        let law = Law::fit(&worse).unwrap();
        assert!(
            law.a == 0.0 && law.warnings.iter().any(|warning| warning.contains("more depth does not lower")),
            "{law:?}"
        );
        let same: Vec<Point> = points(0.0).into_iter().map(|point| Point { loss: 3.0, ..point }).collect();
        assert!(Law::fit(&same).unwrap().r2 <= 0.0);
    }

    #[test]
    fn too_few_points_are_refused() {
        let all = points(0.0);
        let flat: Vec<Point> = all.iter().map(|point| Point { width: 512.0, ..*point }).collect();
        for few in [&all[..5], &all[..6], &flat[..], &[]] {
            let why = Law::fit(few).unwrap_err().to_string();
            assert!(why.contains("too few for the law's five constants"), "{why}");
        }
        assert!(Law::fit(&all[..9]).is_ok());
    }
}
