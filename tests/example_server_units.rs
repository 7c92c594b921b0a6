//! The example server's unit tests. Cargo builds examples with the tests, as programs that the other tests start; the
//! tests inside them run from here.

#![allow(dead_code)]

#[path = "../examples/server/main.rs"]
mod server;
