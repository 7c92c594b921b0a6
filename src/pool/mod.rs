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
//! | `local`, `open_stream`, `current` | thread-local values of a worker; an open stream; the running task |
//! | `publish`, `sampler` | the pool's metrics; the sampler |
//! | `worker`, `task`, `handle` | the worker loop; the allocation of a task; the caller's handle to it |
//! | `rider` | a task that rides in the permit of another |
//! | `submit`, `limits`, `checkpoint`, `watch` | the handle to a pool; its limit, as slots see it; cancellation, as a task sees it; what a dashboard reads |

mod checkpoint;
mod current;
mod group;
mod handle;
mod limits;
mod local;
mod open_stream;
mod plan;
mod publish;
mod rider;
mod sampler;
mod shared;
mod submit;
mod task;
#[cfg(feature = "dashboard")]
mod watch;
mod worker;

pub use self::checkpoint::{cancelled, checkpoint, is_cancelled};
pub use self::current::{HeldPermit, hold_permit};
pub use self::submit::Pool;
pub use crate::admission::Counts;
pub use crate::metrics::batches::BatchCounts;
pub use crate::metrics::holdings::{HoldingStats, LoadedModel, ModelsStats, SlotsStats};
pub use crate::metrics::stats::{ActiveTask, PoolStats};
pub use crate::options::TaskOptions;

pub(crate) use self::current::CurrentTask;
pub(crate) use self::group::Group;
pub(crate) use self::handle::CancelOnDrop;
pub(crate) use self::limits::{current_deadline, current_panicked};
pub(crate) use self::local::is_worker;
pub(crate) use self::open_stream::{FrameTimes, OpenStream};
pub(crate) use self::plan::{Hooks, Plan};
pub(crate) use self::rider::{Rider, Riders};
pub(crate) use self::submit::{Rejected, Submission, always_ok};
