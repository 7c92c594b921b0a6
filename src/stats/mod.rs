//! What pools show to people and machines: the endpoint, its JSON, the status block in the log, and Prometheus' text.

mod answer;
mod json;
#[cfg(feature = "prometheus")]
mod prometheus;
mod service;
mod status;

#[cfg(feature = "prometheus")]
pub use self::prometheus::{InstallError, MetricsService};
pub use self::service::StatsService;
