//! Comparison of numbers that are not the output of a single operator.

use nemoflash::check::rms_ratio;

/// Computes [`rms_ratio`] and prints it in one line.
///
/// # Errors
/// As [`rms_ratio`].
pub fn close(name: &str, want: &[f32], got: &[f32], tolerance: f64) -> Result<f64, String> {
    let ratio = rms_ratio(name, want, got, tolerance)?;
    println!("{name}: ratio {ratio:.2e} of {tolerance:.0e} over {} values", want.len());
    Ok(ratio)
}
