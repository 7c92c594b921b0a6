//! Tower middleware that runs each request's handler in a workload pool.

#[doc(hidden)]
pub mod admission;
mod config;
mod error;
mod layer;
pub mod metrics;
mod pool;
mod pools;
mod reject;
mod select;
#[cfg(feature = "server")]
#[cfg_attr(docsrs, doc(cfg(feature = "server")))]
pub mod server;
mod sync;
mod timer;
mod workload;

pub use crate::config::{
    Config, ConfigError, General, Performance, PoolConfig, Route, ServerConfig, ThreadPools, Workers,
};
pub use crate::error::{Cause, JobError, OffloadError, Panic, Rejection, UnknownPool};
pub use crate::layer::{PoolLayer, PoolService, ResponseFuture};
pub use crate::pool::{ActiveTask, JobHandle, Pool, PoolStats};
pub use crate::pools::{BatchExecutor, BuildError, DrainReport, IntoJob, PoolDrain, Pools, PoolsBuilder};
pub use crate::reject::{Errors, Protocol, Reject, RejectWith, ResponseBody, Responses};
pub use crate::select::{ByExtension, ByFn, ByRoute, Or, Select, Target};
pub use crate::workload::{Cpu, Db, Embedding, Inference, Io, Marker, PoolName, Workload};
