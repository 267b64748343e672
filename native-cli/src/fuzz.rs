//! What the fuzz targets of `fuzz/` do with the files that the command reads. A fault is a panic;
//! `native-cli/tests/fuzz_corpus.rs` replays the corpus.

use crate::compare::read;
use crate::hub::listed;
use crate::profile::points;

/// A file of `nemoflash bench`: rows that are accepted have times that can be compared.
pub fn report(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    for row in read::rows(&text, "file", &mut vec![]).into_iter().flatten() {
        assert!(row.time.samples.iter().all(|seconds| seconds.is_finite() && *seconds > 0.0), "{row:?}");
    }
}

/// A file of `--points`: points that are accepted have positive numbers.
pub fn points(data: &[u8]) {
    for point in points::of(data, "file").into_iter().flatten() {
        assert!([point.depth, point.width, point.loss].iter().all(|x| x.is_finite() && *x > 0.0), "{point:?}");
    }
}

/// The hub's answer about a repository: no file of a listing has a name that leaves its folder.
pub fn listing(data: &[u8]) {
    for name in listed(data).into_iter().flatten() {
        assert!(!name.is_empty() && !name.starts_with('/') && name.split('/').all(|part| part != ".."), "{name}");
    }
}
