//! See `slipway_fuzz::dockerfile`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| slipway_fuzz::dockerfile(data));
