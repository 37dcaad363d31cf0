//! See `slipway_fuzz::ignore`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| slipway_fuzz::ignore(data));
