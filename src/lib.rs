//! Tower middleware that runs each request's handler in a workload pool.

mod error;
mod workload;

pub use crate::error::{Cause, JobError, OffloadError, Panic, Rejection, UnknownPool};
pub use crate::workload::{Cpu, Db, Embedding, Inference, Io, Marker, PoolName, Workload};

mod standin;
pub use standin::*;
#[cfg(feature = "server")]
pub mod server;
