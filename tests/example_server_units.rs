//! Runs the unit tests of the example server, which `cargo test` builds but does not run as part of the example.

#![allow(dead_code)]

#[path = "../examples/server/main.rs"]
mod server;
