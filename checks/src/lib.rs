//! Checks of `tower-offload` together with crates that its own tests should not have to build: `cargo test -p checks`.
//!
//! [`ambient`](../tests/ambient/main.rs) checks that a caller's OpenTelemetry context, Sentry hub and `tracing` dispatcher
//! reach its tasks, and no others. `suites.sh` runs the test suites of axum and tower-http with every service behind a
//! `PoolLayer`.

#[doc(no_inline)]
pub use tower_offload;
