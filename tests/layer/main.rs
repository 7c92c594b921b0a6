//! The layer on real services: where code runs, what stays unchanged, and what a rejected caller gets.

#![allow(clippy::unwrap_used, reason = "the functions that tests share are tests too")]

mod axum_places;
mod bodies;
mod branches;
mod cancellation;
mod context;
mod contract;
mod fixtures;
mod grpc;
mod http;
mod load_report;
mod metrics;
mod observing;
mod orders;
mod protocol;
mod reentry;
mod rejections;
mod routes;
mod selection;
mod stacks;
mod stats_paths;
mod terms;
mod testing;
mod tracing_requests;
