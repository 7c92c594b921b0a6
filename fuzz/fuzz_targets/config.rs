//! Any text as a configuration.

#![no_main]

#[path = "../../tests/fuzzed/config.rs"]
mod config;

libfuzzer_sys::fuzz_target!(|text: &str| config::check(text));
