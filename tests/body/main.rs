//! Request bodies that are read before their requests are handled.

// Helpers in an integration test count as test code.
#![allow(clippy::unwrap_used)]

mod cuts;
#[allow(dead_code, reason = "shared with other tests")]
#[path = "../layer/fixtures.rs"]
mod fixtures;
mod grpc;
mod left;
mod places;
mod pool;
mod refused;
mod script;
mod starved;
mod streamed;
mod wire;
