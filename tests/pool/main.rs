//! The promises of a pool, one test each. The tests use handshakes: none sleeps to see whether something happens.

#![allow(clippy::unwrap_used, reason = "the functions that tests share are tests too")]

mod awaiting;
mod batches;
mod checkpoints;
mod children;
mod disabled;
mod draining;
mod events;
mod handles;
mod hooks;
mod limits;
mod load;
mod logging;
mod nested;
mod numbers;
mod panics;
mod permits;
mod reentry;
mod scripts;
mod starting;
mod support;
mod timeouts;
mod workers;
