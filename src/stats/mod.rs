//! Endpoints: the state of the pools as JSON, readiness, and the metrics as Prometheus' text.
//!
//! | endpoint | service |
//! |---|---|
//! | `/health/thread-pools`, `…/ready`, `…/scale`, `…/log-status` | [`StatsService`] |
//! | `/metrics` | `MetricsService` (feature `prometheus`), or your own with [`Pools::publish_metrics`](crate::Pools::publish_metrics) |

mod answer;
mod json;
#[cfg(feature = "prometheus")]
mod prometheus;
#[cfg(feature = "metrics")]
mod publish;
mod service;
mod status;
#[cfg(test)]
mod tests;

#[cfg(feature = "prometheus")]
pub use self::prometheus::{InstallError, MetricsService};
pub use self::service::StatsService;
