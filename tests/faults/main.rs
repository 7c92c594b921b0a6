//! The example server under faults: it is killed, it runs out of threads and descriptors, and its clients are slow, half
//! closed, hostile or many. Acknowledged writes survive, other clients are served meanwhile, and afterwards every pool is
//! at rest.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "the functions that tests share are tests too")]

#[allow(dead_code, reason = "other tests use the rest")]
#[path = "../example/onnx.rs"]
mod onnx;
#[path = "../example/process.rs"]
mod process;

mod clock;
mod descriptors;
mod halves;
mod http2;
mod killed;
mod leaks;
mod log;
mod malformed;
mod names;
mod reloads;
mod resets;
mod scrape;
mod secrets;
mod slow;
mod support;
mod terminated;
mod threads;
