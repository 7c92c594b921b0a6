//! Any bytes as a sequence of calls to admission.

#![no_main]

#[path = "../../tests/fuzzed/admission.rs"]
mod admission;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let (settings, seed, calls) = admission::decode(data);
    admission::check(settings, seed, calls);
});
