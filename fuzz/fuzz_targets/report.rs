#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| nemoflash_cli::fuzz::report(data));
