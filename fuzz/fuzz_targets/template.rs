#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| nemoflash_tests::fuzz::template(data));
