//! Tower middleware that runs each request's handler in a *workload pool*, so that a handler that burns CPU, blocks on
//! a disk or runs a model does not stall all the others.
//!
//! An async server polls every handler on the same few runtime threads. [`PoolLayer`] wraps a route, a router or any
//! Tower service, and runs its requests on the threads of a pool: `io`, `cpu`, `inference`, `embedding`, `db`, or your
//! own. Every pool has its own threads, its own concurrency limit and its own bounded queue, rejects cheaply what it
//! cannot take, and has metrics for Prometheus.
//!
//! ```
//! use axum::{Router, routing::{get, post}};
//! use tower_offload::{Cpu, PoolLayer, Pools, StatsService};
//!
//! async fn digest(body: String) -> String {
//!     // Plain blocking code: it runs on a thread of the `cpu` pool.
//!     body.bytes().fold(5381_u64, |hash, byte| hash.wrapping_mul(33) ^ u64::from(byte)).to_string()
//! }
//!
//! let pools = Pools::default();
//! let app: Router = Router::new()
//!     .route("/digest", post(digest).route_layer(PoolLayer::<Cpu>::new(&pools)))
//!     .route("/health", get(|| async { "ok" }))
//!     .nest_service("/health/thread-pools", StatsService::new(&pools));
//! ```
//!
//! # The way of a request
//!
#![doc = include_str!("../docs/way.svg")]
//!
//! If a worker's poll of a task returns `Pending`, the worker takes the next task. A woken task goes ahead of the
//! queue, up to eight times in a row while a queued task could start. Handlers see the Tokio runtime that they were
//! submitted from, so timers, sockets and `tokio::spawn` work. They may block: no thread of that runtime runs them.
//!
//! A task that submits another task to its own pool queues like any other. A worker that waits for such a task, while
//! no permit or no other worker is free for it, runs it in place. So a pool never waits for itself.
//!
//! # Where to look
//!
//! | for | see |
//! |---|---|
//! | wrapping a service, and what runs where | [`PoolLayer`] |
//! | choosing the pool: by type, route, extension, closure | [`PoolLayer`], [`select`] |
//! | what a rejected caller gets | [`reject`], [`error`] |
//! | deadlines, priorities, callers | [`terms`], [`config::Trust`] |
//! | closures, futures and batches without HTTP | [`Pools::run_in_pool`], [`Pools::submit_to_pool`], [`pools::BatchExecutor`] |
//! | bodies: read before the queue, polled in the pool, written by blocking code | [`PoolLayer::read_body`], [`PoolLayer::body`], [`body`], [`stream`] |
//! | what code in a task can do: learn that it should stop, keep its permit | [`current`] |
//! | single items that run in batches | [`batch`] |
//! | sessions and connections that belong to permits; many models under a budget | [`slots`] |
//! | settings, from YAML or in code | [`Config`], [`PoolConfig`], [`Pools::builder`] |
//! | numbers: JSON, log, Prometheus | [`stats`], [`Pools::log_current_status`], `metrics` |
//! | a live page for people | `Dashboard` |
//! | the load, for people, autoscalers and balancers | [`load`], [`Pools::load`] |
//! | a server with a graceful shutdown | `server::serve` |
//! | pages on single subjects | [`docs`]: configuration, metrics, load, overload, deployment, shutdown, layers, bodies, batches, models, connections, testing, troubleshooting, migrating, costs, evidence |
//!
//! # Features
//!
//! | feature | default | brings |
//! |---|---|---|
//! | `config` | yes | [`Config`] from YAML and back |
//! | `metrics` | yes | the pools' metrics, through the `metrics` facade |
//! | `dashboard` | | `Dashboard`, a live page |
//! | `prometheus` | | `MetricsService`, over `metrics-exporter-prometheus` |
//! | `axum` | | [`Rejection`], [`TaskError`], and the errors of slots and batches as axum responses |
//! | `tonic` | | the same errors as `tonic::Status` |
//! | `server` | | `server::serve`, over hyper |
//! | `orca` | | `report::LoadReport`: the load, for balancers |
//!
//! # Limits
//!
//! - Code that blocks or computes cannot be interrupted. If its client leaves, it runs to its end, and counts against
//!   the limit until then. [`checkpoint`] tells it that its result is of no use any more.
//! - Tasks of two pools that wait for each other (A for B, and B for A) may deadlock, because each holds a worker that
//!   the other needs. If one of them is still queued, its queue timeout ends the deadlock. Tasks of one pool may wait
//!   for each other.
//! - On Linux, tasks that compute for long on every core leave few workers to the other tasks of their pool, even to
//!   those that would only block. Give the two kinds separate pools. Elsewhere the state of threads is not known: a
//!   pool computes with as many threads as it has workers.
//! - A task that has a permit and waits for a worker has left the queue. The queue timeout does not apply to it any
//!   more; its deadline does.
//! - The body of a response is polled outside the pool, unless [`PoolLayer::body`] or the settings say otherwise. The
//!   tasks that a handler spawns always run outside: `ServeDir`, for example, reads files on Tokio's blocking threads.
//! - Pools of the same name in one process, of two [`Pools`], write to the same metrics. Give them different names.
//! - Under `tokio::time::pause`, Tokio considers a runtime that waits for a pool idle, and advances its clock.
//! - Pools that were used before a `fork` do not work in the child; pools that were not, do.
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(feature = "__internals")]
#[doc(hidden)]
pub mod admission;
#[cfg(not(feature = "__internals"))]
#[allow(dead_code, unreachable_pub, unused_imports, reason = "the tests of this repository use all of it")]
mod admission;
pub mod batch;
mod block_on;
pub mod body;
mod budget;
pub mod config;
mod cores;
pub mod current;
#[cfg(feature = "dashboard")]
#[cfg_attr(docsrs, doc(cfg(feature = "dashboard")))]
pub mod dashboard;
mod dispatch;
pub mod error;
mod function_name;
mod headers;
mod inner_service;
pub mod layer;
pub mod load;
#[cfg(feature = "metrics")]
#[cfg_attr(docsrs, doc(cfg(feature = "metrics")))]
pub mod metrics;
#[cfg(not(feature = "metrics"))]
mod metrics;
mod options;
pub mod pool;
pub mod pools;
pub mod reject;
#[cfg(feature = "orca")]
#[cfg_attr(docsrs, doc(cfg(feature = "orca")))]
pub mod report;
pub mod select;
#[cfg(feature = "server")]
#[cfg_attr(docsrs, doc(cfg(feature = "server")))]
pub mod server;
mod shield;
mod signal;
pub mod slots;
mod stall;
pub mod stats;
pub mod stream;
mod sync;
mod task;
pub mod terms;
mod thread_state;
mod threads;
mod timer;
pub mod workload;

pub use crate::config::{Config, PoolConfig, Workers};
pub use crate::current::{cancelled, checkpoint, hold_permit, is_cancelled};
#[cfg(feature = "dashboard")]
#[cfg_attr(docsrs, doc(cfg(feature = "dashboard")))]
pub use crate::dashboard::Dashboard;
pub use crate::error::{Cancelled, Reason, Rejection, TaskError};
pub use crate::layer::PoolLayer;
pub use crate::pool::{Pool, PoolStats};
pub use crate::pools::{Pools, TaskHandle};
pub use crate::slots::Slots;
#[cfg(feature = "prometheus")]
#[cfg_attr(docsrs, doc(cfg(feature = "prometheus")))]
pub use crate::stats::MetricsService;
pub use crate::stats::StatsService;
pub use crate::terms::{Caller, Deadline, Priority};
pub use crate::workload::{Cpu, Db, Embedding, Inference, Io, Marker, Workload};

/// Pages on single subjects.
#[cfg(any(doc, doctest))]
pub mod docs {
    /// Each page is a file of `docs/`. Its links to other pages are to files; here the same links lead to modules.
    macro_rules! pages {
        ($($name:ident: $file:literal, $summary:literal;)*) => {$(
            #[doc = $summary]
            #[doc = ""]
            #[doc = "[batches]: crate::docs::batches"]
            #[doc = "[bodies]: crate::docs::bodies"]
            #[doc = "[configuration]: crate::docs::configuration"]
            #[doc = "[dashboard]: crate::docs::dashboard"]
            #[doc = "[deployment]: crate::docs::deployment"]
            #[doc = "[layers]: crate::docs::layers"]
            #[doc = "[load]: crate::docs::load"]
            #[doc = "[metrics]: crate::docs::metrics"]
            #[doc = "[models]: crate::docs::models"]
            #[doc = "[overload]: crate::docs::overload"]
            #[doc = "[response-bodies]: crate::docs::response_bodies"]
            #[doc = "[shutdown]: crate::docs::shutdown"]
            #[doc = ""]
            #[doc = include_str!($file)]
            pub mod $name {}
        )*};
    }

    pages! {
        configuration: "../docs/configuration.md", "Every key of the settings: default, values and effect.";
        metrics: "../docs/metrics.md", "Every metric, the JSON, and queries for Prometheus.";
        dashboard: "../docs/dashboard.md", "The live page: what each number means, and how to protect it.";
        load: "../docs/load.md", "The load: one number for people, autoscalers and balancers.";
        overload: "../docs/overload.md", "What a pool does with more work than it can do, and what its callers get.";
        deployment: "../docs/deployment.md", "Behind proxies and balancers, in containers, under Kubernetes and systemd.";
        shutdown: "../docs/shutdown.md", "Graceful shutdown and restarts, with `server::serve`, `axum::serve` and tonic.";
        bodies: "../docs/bodies.md", "Request bodies: read before the queue, or streamed into the handler.";
        response_bodies: "../docs/response-bodies.md", "Bodies of responses: who polls them, what they hold, stalls, drains.";
        batches: "../docs/batches.md", "Single items that run in batches: limits, deadlines, and how large batches become.";
        models: "../docs/models.md", "Model sessions that belong to permits, swaps, and many models under a budget.";
        connections: "../docs/connections.md", "Connections that belong to permits, and the sizes of other pools of connections.";
        layers: "../docs/layers.md", "In which order `PoolLayer` goes with other layers.";
        testing: "../docs/testing.md", "How to test handlers that run in pools.";
        troubleshooting: "../docs/troubleshooting.md", "Symptoms, what causes them, and what to do.";
        migrating: "../docs/migrating.md", "From `spawn_blocking`, rayon, Python's executors, and tower's limits.";
        costs: "../docs/costs.md", "What offloading costs in time, memory and threads.";
        evidence: "../docs/evidence.md", "What the crate has been put through, and how to do it again.";
    }
}

/// The examples of the README.
#[cfg(all(doctest, feature = "config", feature = "prometheus", feature = "server"))]
#[doc = include_str!("../README.md")]
#[derive(Debug)]
pub struct Readme;
