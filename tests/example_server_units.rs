//! The unit tests of the example server. `cargo test` builds examples without running their tests, so this program includes
//! the example.

#![allow(dead_code)]

#[path = "../examples/server/main.rs"]
mod server;
