//! Comparison of numbers that no operator's check holds.

use nemoflash::check::rms_ratio;

/// [`rms_ratio`], and one line that tells it.
///
/// # Errors
/// As [`rms_ratio`].
pub fn close(name: &str, want: &[f32], got: &[f32], tolerance: f64) -> Result<f64, String> {
    let ratio = rms_ratio(name, want, got, tolerance)?;
    println!("{name}: ratio {ratio:.2e} of {tolerance:.0e} over {} values", want.len());
    Ok(ratio)
}
