//! The corpus of the fuzz targets that read files of the command, replayed: what once was a fault stays mended.
#![forbid(unsafe_code)]

use crate::common::root;
use nemoflash_cli::fuzz;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};

type Body = fn(&[u8]);

/// The files of a corpus at which `body` panics, and how many files there are.
fn faults(target: &str, body: Body) -> (Vec<String>, usize) {
    let files: Vec<_> = fs::read_dir(root().join("fuzz/corpus").join(target))
        .expect("a corpus")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    let fails = |path: &&std::path::PathBuf| {
        let data = fs::read(path).expect("a file");
        catch_unwind(AssertUnwindSafe(|| body(&data))).is_err()
    };
    (files.iter().filter(fails).map(|path| path.display().to_string()).collect(), files.len())
}

#[test]
fn the_corpus_has_no_faults() {
    let targets: [(&str, Body); 3] = [("listing", fuzz::listing), ("points", fuzz::points), ("report", fuzz::report)];
    for (target, body) in targets {
        let (faults, count) = faults(target, body);
        assert!(faults.is_empty(), "{target}: {faults:?}");
        assert!(count >= 10, "{target}: {count}");
    }
    // Negative control.
    let (faults, count) = faults("points", |data| assert!(data.is_empty(), "not empty"));
    assert!(faults.len() + 1 == count, "{faults:?} of {count}");
}

/// Parts of the corpus put together at random: thousands of inputs that are near to a file.
#[test]
fn spliced_files_do_no_harm() {
    let targets: [(&str, Body); 3] = [("listing", fuzz::listing), ("points", fuzz::points), ("report", fuzz::report)];
    for (target, body) in targets {
        let files: Vec<Vec<u8>> = fs::read_dir(root().join("fuzz/corpus").join(target))
            .expect("a corpus")
            .map(|entry| fs::read(entry.expect("an entry").path()).expect("a file"))
            .collect();
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..2000 {
            let mut piece = || {
                let file = &files[random.usize(..files.len())];
                let from = random.usize(..=file.len());
                file[from..random.usize(from..=file.len())].to_vec()
            };
            let data = [piece(), piece(), piece()].concat();
            let fine = catch_unwind(AssertUnwindSafe(|| body(&data)));
            assert!(fine.is_ok(), "{target}: {:?}", String::from_utf8_lossy(&data));
        }
    }
}
