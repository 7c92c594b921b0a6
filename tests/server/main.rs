//! `tower_offload::server` over real sockets on the loopback interface.

// The functions that tests share are tests too.
#![allow(clippy::unwrap_used)]

mod age;
mod dashboard;
mod descriptors;
mod flow;
mod fork;
mod hang_up;
mod harness;
mod header_timeout;
mod http10;
mod idle;
mod linger;
mod listeners;
mod load;
mod paused;
mod peers;
mod process;
mod protocols;
mod restart;
mod shutdown;
mod signals;
mod stages;
mod stalled;
mod tls;
mod tunnel;
mod upgrade;
