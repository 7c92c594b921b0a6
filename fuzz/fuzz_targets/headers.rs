//! Any bytes as the headers that a pool believes.

#![no_main]

#[path = "../../tests/fuzzed/headers.rs"]
mod headers;

libfuzzer_sys::fuzz_target!(|data: &[u8]| headers::check(data));
