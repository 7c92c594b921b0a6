//! `tower_offload::server` over real sockets on the loopback interface.

mod descriptors;
mod harness;
mod header_timeout;
mod idle;
mod load;
mod protocols;
mod shutdown;
mod signals;
mod upgrade;
