//! Load reports: every response tells the balancer how loaded its server is.
//!
//! The format is that of ORCA (Open Request Cost Aggregation), which Envoy, gRPC's clients and the load balancers of
//! Google Cloud read. A balancer that knows the load of each server gives more requests to a server that can do more. One
//! that does not know it prefers a server that rejects requests, because rejections are the fastest responses.
//!
//! ```
//! use axum::{Router, routing::post};
//! use tower_offload::report::LoadReport;
//! use tower_offload::{Cpu, PoolLayer, Pools};
//!
//! let pools = Pools::default();
//! let app: Router = Router::new()
//!     .route("/digest", post(|| async { "done" }).route_layer(PoolLayer::<Cpu>::new(&pools)))
//!     .layer(LoadReport::new(&pools)); // outside of all pools, so that rejections have it too
//! # let _ = app;
//! ```
//!
//! # What is reported
//!
//! | field | value |
//! |---|---|
//! | `application_utilization` | the [load](crate::load) of the pools that count, and at least 0.01, because balancers ignore a 0. It is not capped: a server with twice too much work reports 2. While the pools drain, it is at least 1 |
//! | `rps_fractional` | tasks that were submitted to these pools a second, and at least 0.01 |
//! | `eps` | tasks of them that failed or were rejected, a second |
//! | `named_metrics.NAME` | the load of pool NAME, for each of them, after [`LoadReport::named_metrics`] |
//!
//! A balancer gives each server a weight of `rps_fractional ÷ application_utilization`, less for errors. With these two
//! numbers that is the rate of requests that the server can do.
//!
//! # Where
//!
//! | request | where | form |
//! |---|---|---|
//! | HTTP | the header `endpoint-load-metrics` | `TEXT …`, or as the request's header `endpoint-load-metrics-format` asks: `text`, `json` or `bin` |
//! | gRPC | the trailer `endpoint-load-metrics-bin` | binary |
//!
//! A report is at most 50 ms old. Only the responses that are sent while a new one is made carry the report before it,
//! which is older if the server was idle. Envoy passes the header on to clients: remove it there if strangers must not
//! see how loaded the servers are (`response_headers_to_remove`).

mod body;
mod clock;
mod layer;
mod orca;
mod reporter;

pub use self::body::ReportBody;
pub use self::layer::{LoadReport, LoadReportFuture, LoadReportService};
