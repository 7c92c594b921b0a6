//! Tower middleware that runs each request's handler in a workload pool.

mod config;
mod error;
mod workload;

pub use crate::config::{
    Config, ConfigError, General, Performance, PoolConfig, Route, ServerConfig, ThreadPools, Workers,
};
pub use crate::error::{Cause, JobError, OffloadError, Panic, Rejection, UnknownPool};
pub use crate::workload::{Cpu, Db, Embedding, Inference, Io, Marker, PoolName, Workload};
