//! Any script of frames as the body of a response, and a reader that may leave.

#![no_main]

#[path = "../../tests/fuzzed/frames.rs"]
mod frames;

libfuzzer_sys::fuzz_target!(|data: &[u8]| frames::check(&frames::decode(data)));
