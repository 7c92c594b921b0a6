//! The promises of slots and models, one test each. The tests use handshakes: none sleeps to see whether something
//! happens.

#![allow(clippy::unwrap_used, reason = "the functions that tests share are tests too")]

mod lending;
mod making;
mod model_swaps;
mod models;
mod panics;
mod settings;
#[allow(dead_code, reason = "the tests of pools use all of it")]
#[path = "../pool/support.rs"]
mod support;
mod swaps;
mod tally;
