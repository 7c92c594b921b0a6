//! Any text as routes, and requests to them.

#![no_main]

#[path = "../../tests/fuzzed/routes.rs"]
mod routes;

libfuzzer_sys::fuzz_target!(|text: &str| routes::check(text));
