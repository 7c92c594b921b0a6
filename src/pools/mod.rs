//! All pools of an application: found by name, for closures and futures, in batches, and their shutdown.

mod all;
mod batch_executor;
mod builder;
mod draining;
mod handle;
mod into_task;
mod observed;
mod routes;
mod run;
mod shutdown;

pub use self::all::Pools;
pub use self::batch_executor::BatchExecutor;
pub use self::builder::{BuildError, PoolsBuilder};
pub use self::handle::TaskHandle;
pub use self::into_task::IntoTask;
pub use self::observed::SlowRoute;
pub use self::shutdown::{DrainReport, PoolDrain};

pub(crate) use self::run::call_here;
