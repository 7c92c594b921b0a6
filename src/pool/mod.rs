//! One pool: its workers, its queue, its tasks, and its numbers.
//!
//! [`Pool::submit`] builds a task around a future and offers it to `dispatch`, which asks `admission` under the pool's
//! one lock. A `worker` polls the task. When the task ends, the worker releases its permit, and the caller reads the
//! answer through its `handle`.
//!
//! A file imports only from files that stand before it in this table:
//!
//! | file | contents |
//! |---|---|
//! | `group`, `plan`, `shared` | all pools; the settings of one pool; its state, and a task of any type |
//! | `local` | the thread-local values of a worker |
//! | `publish`, `sampler` | the pool's metrics; the sampler |
//! | `worker`, `task`, `handle` | the worker loop; the allocation of a task; the caller's handle to it |
//! | `submit`, `slots`, `watch` | the handle to a pool; a pool, as its slots see it; what a dashboard reads |

mod group;
mod handle;
pub(crate) mod local;
mod plan;
mod publish;
mod sampler;
mod shared;
mod slots;
mod submit;
mod task;
#[cfg(feature = "dashboard")]
mod watch;
pub(crate) mod worker;

pub use self::submit::Pool;
pub use crate::admission::Counts;
pub use crate::metrics::batches::BatchCounts;
pub use crate::metrics::holdings::{HoldingStats, LoadedModel, ModelsStats, SlotsStats};
pub use crate::metrics::stats::{ActiveTask, PoolStats};
pub use crate::options::TaskOptions;

pub(crate) use self::group::Group;
pub(crate) use self::handle::CancelOnDrop;
pub(crate) use self::plan::{Hooks, Plan};
pub(crate) use self::shared::{Runnable, Shared, TaskRef};
pub(crate) use self::submit::{Rejected, Submission, always_ok};
