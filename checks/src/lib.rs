//! Checks of `tower-offload` together with crates that its own tests should not have to build: `cargo test -p checks`.
//!
//! - `tests/ambient`: a caller's OpenTelemetry context, Sentry hub and `tracing` dispatcher reach its tasks, and no others.
//! - `examples/otlp.rs` exports traces and metrics to a collector of OpenTelemetry; `tests/otlp` is such a collector.
//! - `axum.sh` runs axum's own unit tests with every service of a router in a pool.
//! - The examples below do not compile, because this crate depends on `tower-offload` as its users do.
//!
//! The rules of admission are private. Only the tests and the fuzzers of this repository can use them:
//!
//! ```compile_fail,E0603
//! use tower_offload::admission;
//! ```
//!
//! So are the internals of the pools:
//!
//! ```compile_fail,E0603
//! use tower_offload::metrics::lock_publishing;
//! ```
//!
//! The public items that users need are there:
//!
//! ```
//! use tower_offload::{Cancelled, Config, Pool, PoolConfig, PoolLayer, Pools, Rejection, StatsService, TaskError};
//! ```
