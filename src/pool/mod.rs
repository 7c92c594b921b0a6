//! One pool: its workers, its queue, the tasks in it, and the numbers it shows.
//!
//! [`Pool::submit`] builds a task around a future and offers it to `dispatch`, which asks `admission` under the pool's one
//! lock. A `worker` polls the task, releases its permit when it ends, and lets the caller read the answer through its
//! `handle`.
//!
//! A file imports only from files that stand before it in this list:
//!
//! | file | what it is |
//! |---|---|
//! | `task_state`, `task_future`, `thread_state`, `context`, `stats` | the state of one task; what it polls; the state of one thread; what travels with a task; numbers |
//! | `cores`, `allotment`, `active_limit`, `core_budget` | how many cores there are; those of one pool; how many of its workers may be awake; the cores of all pools |
//! | `workers`, `effects`, `dispatch` | who is awake; what is put off; the lock |
//! | `runnable`, `task_log`, `local` | a task of any type; its log; what a worker keeps in its thread |
//! | `group`, `shared`, `publish`, `sampler` | what pools share; a pool's parts; its metrics; which workers the system runs |
//! | `worker`, `task`, `handle` | the loop; a future in a pool; the caller's end |
//! | `submit`, `checkpoint` | a pool's handle; what a task can ask |
//!
//! Two folders are for tests only: `checked` has the models of the wake-up protocol, `virtual_time` the simulations.

mod active_limit;
mod allotment;
#[cfg(all(test, any(tower_offload_loom, tower_offload_shuttle)))]
mod checked;
mod checkpoint;
mod context;
mod core_budget;
mod cores;
mod dispatch;
mod effects;
mod group;
mod handle;
mod local;
mod publish;
mod runnable;
mod sampler;
mod shared;
mod stats;
mod submit;
mod task;
mod task_future;
mod task_log;
mod task_state;
mod thread_state;
#[cfg(all(test, not(any(tower_offload_loom, tower_offload_shuttle))))]
mod virtual_time;
mod worker;
mod workers;

pub use self::checkpoint::{Cancelled, cancelled, checkpoint, is_cancelled};
pub use self::handle::TaskHandle;
pub use self::stats::{ActiveTask, PoolStats};
pub use self::submit::Pool;
pub use crate::admission::Counts;
pub use crate::options::TaskOptions;

pub(crate) use self::context::ContextHooks;
pub(crate) use self::group::Group;
pub(crate) use self::handle::{Pending, block_on};
pub(crate) use self::shared::{Hooks, Plan, WorkerHooks};
pub(crate) use self::stats::ratio;
pub(crate) use self::submit::{Rejected, Submission, always_ok};
pub(crate) use self::task_future::{Boxed, TaskFuture};
pub(crate) use self::task_log::{function_name, short_type_name};
