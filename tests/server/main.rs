//! `tower_offload::server` over real sockets on the loopback interface.

// The helpers of tests are tests.
#![allow(clippy::unwrap_used)]

mod descriptors;
mod harness;
mod header_timeout;
mod idle;
mod load;
mod protocols;
mod shutdown;
mod signals;
mod upgrade;
