//! The example server while things go wrong around it: it is killed, starved of threads and descriptors, and asked by
//! clients that are slow, half gone, hostile or many. Nothing that was acknowledged is lost, everybody else is served,
//! and once it is over nothing is left behind.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "the functions that tests share are tests too")]

#[path = "../example/process.rs"]
mod process;

mod clock;
mod descriptors;
mod halves;
mod http2;
mod killed;
mod log;
mod malformed;
mod names;
mod resets;
mod scrape;
mod secrets;
mod slow;
mod support;
mod terminated;
mod threads;
