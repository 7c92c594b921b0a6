//! Tower middleware that runs each request's handler in a *workload pool*, so that a handler that burns CPU, blocks on a
//! disk or runs a model does not stall all the others.
//!
//! An async server polls every handler on the same few runtime threads. [`PoolLayer`] wraps a route, a router or any
//! Tower service, and runs its requests on the threads of a pool: `io`, `cpu`, `inference`, `embedding`, `db`, or your
//! own. Every pool has its own threads, its own concurrency limit and its own bounded queue, rejects cheaply what it cannot
//! take, and has metrics for Prometheus.
//!
//! ```
//! use axum::{Router, routing::{get, post}};
//! use tower_offload::{Cpu, PoolLayer, Pools, StatsService};
//!
//! async fn digest(body: String) -> String {
//!     // Plain blocking code: it runs on a thread of the `cpu` pool.
//!     (0..100).fold(body, |text, _| format!("{:x}", text.len() * 31)).to_string()
//! }
//!
//! let pools = Pools::default();
//! let app: Router = Router::new()
//!     .route("/digest", post(digest).route_layer(PoolLayer::<Cpu>::new(&pools)))
//!     .route("/health", get(|| async { "ok" }))
//!     .nest_service("/health/thread-pools", StatsService::new(&pools));
//! ```
//!
//! # A request's way
//!
//! ```text
//!  connection's task (Tokio)                          pool                      worker (OS thread)
//!  ─────────────────────────                          ────                      ──────────────────
//!  PoolService::call ── select ──┐
//!  ResponseFuture::poll ── submit ──► admission: permit now ───► ready ──────────► call the handler,
//!        ▲                            │      or queue ─────────► (a permit is free) poll its future
//!        │                            └──── or reject                                │
//!        │◄──────────── rejection ──────────┘                                        │
//!        │◄──────────────────────── response, and the permit comes home ◄────────────┘
//! ```
//!
//! A worker that polls a future to `Pending` gives the thread to the next task; a task that is woken goes ahead of the
//! queue. Handlers see the Tokio runtime they were submitted from, so timers, sockets and `tokio::spawn` work, and they
//! may block as they like: no runtime thread ever runs them.
//!
//! # Where to look
//!
//! | for | see |
//! |---|---|
//! | wrapping a service, and what runs where | [`PoolLayer`] |
//! | choosing the pool: by type, route, extension, closure | [`PoolLayer`], [`select`] |
//! | what a rejected caller gets | [`reject`], [`error`] |
//! | overload: deadlines, priorities, fairness | [`terms`], [`config::Queue`], [`config::Trust`] |
//! | closures, futures and batches without HTTP | [`Pools::run_in_pool`], [`Pools::submit_to_pool`], [`pools::BatchExecutor`] |
//! | settings, from YAML or in code | [`Config`], [`PoolConfig`], [`Pools::builder`] |
//! | numbers: JSON, log, Prometheus | [`stats`], [`Pools::log_current_status`], `metrics` |
//! | a server with a graceful shutdown | `server::serve` |
//! | the order of layers; tests of an application | `docs::layers`, `docs::testing` |
//!
//! # Features
//!
//! | feature | default | brings |
//! |---|---|---|
//! | `config` | yes | [`Config`] from YAML and back |
//! | `metrics` | yes | the pools' metrics, through the `metrics` facade |
//! | `prometheus` | | `MetricsService`, over `metrics-exporter-prometheus` |
//! | `axum` | | [`Rejection`] and [`TaskError`] as axum responses |
//! | `tonic` | | [`Rejection`] and [`TaskError`] as `tonic::Status` |
//! | `server` | | `server::serve`, over hyper |
//!
//! # Limits
//!
//! - Blocking or computing code cannot be interrupted. If its client leaves, it runs to its end, and counts against the
//!   limit until then.
//! - A task of pool A that blocks on a task of pool B, which blocks on A, waits for a worker it holds itself. Submitting
//!   to the pool one is in runs inline; longer circles end with the queue timeout, unless the task that is waited for has
//!   begun.
//! - On Linux, tasks that compute for long on every core leave the other tasks of their pool few workers, also those that
//!   would only block: give the two kinds separate pools. Tasks that are in flight and wait for a worker are not subject to the
//!   queue's timeout and order.
//! - The body of a response and the tasks that a handler spawns run outside the pool: `ServeDir`, for example, opens a file
//!   in its pool and reads it on Tokio's blocking threads.
//! - Tasks that are ready again, because they were woken, go before the queue: as many of them as there are workers that
//!   yield without an end keep others waiting.
//! - Pools of the same name in one process, of two [`Pools`], write to the same metrics. Give them different names.
//! - A [`Waker`](std::task::Waker) that panics ends the process if it belongs to the caller of a task. The wakers of Tokio
//!   and of the standard library do not panic.
//! - Under `tokio::time::pause`, Tokio considers a runtime that waits for a pool idle, and advances its clock.
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(feature = "__internals")]
#[doc(hidden)]
pub mod admission;
#[cfg(not(feature = "__internals"))]
#[allow(dead_code, unreachable_pub, unused_imports, reason = "the tests of this repository use all of it")]
mod admission;
pub mod body;
pub mod config;
pub mod error;
mod headers;
pub mod layer;
#[cfg(feature = "metrics")]
#[cfg_attr(docsrs, doc(cfg(feature = "metrics")))]
pub mod metrics;
#[cfg(not(feature = "metrics"))]
mod metrics;
mod options;
pub mod pool;
pub mod pools;
pub mod reject;
pub mod select;
#[cfg(feature = "server")]
#[cfg_attr(docsrs, doc(cfg(feature = "server")))]
pub mod server;
mod shield;
pub mod stats;
mod sync;
pub mod terms;
mod threads;
mod timer;
pub mod workload;

pub use crate::config::{Config, PoolConfig, Workers};
pub use crate::error::{Reason, Rejection, TaskError};
pub use crate::layer::PoolLayer;
pub use crate::pool::{Cancelled, Pool, PoolStats, cancelled, checkpoint, is_cancelled};
pub use crate::pools::Pools;
#[cfg(feature = "prometheus")]
#[cfg_attr(docsrs, doc(cfg(feature = "prometheus")))]
pub use crate::stats::MetricsService;
pub use crate::stats::StatsService;
pub use crate::terms::{Caller, Deadline, Priority};
pub use crate::workload::{Cpu, Db, Embedding, Inference, Io, Marker, Workload};

/// Pages on single subjects.
#[cfg(any(doc, doctest))]
pub mod docs {
    #[doc = include_str!("../docs/layers.md")]
    pub mod layers {}
    #[doc = include_str!("../docs/testing.md")]
    pub mod testing {}
}

/// The examples of the README.
#[cfg(all(doctest, feature = "config", feature = "prometheus", feature = "server"))]
#[doc = include_str!("../README.md")]
#[derive(Debug)]
pub struct Readme;
