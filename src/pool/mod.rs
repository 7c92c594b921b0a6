//! One workload pool: the handle to it, and its numbers.
//!
//! | type | for |
//! |---|---|
//! | [`Pool`] | closures and futures in one pool; its limit, its load, its numbers |
//! | [`TaskOptions`] | the deadline, the priority and the caller of a task |
//! | [`PoolStats`] | the numbers of a pool at one instant, and in it [`Counts`], [`ActiveTask`], [`BatchCounts`], [`HoldingStats`] |
//!
//! ```
//! use std::time::Duration;
//!
//! use tower_offload::pool::TaskOptions;
//! use tower_offload::{Cpu, Deadline, Pools};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let pools = Pools::default();
//! let cpu = pools.get(Cpu)?;
//! let options = TaskOptions::new().deadline(Deadline::after(Duration::from_secs(5)));
//! assert_eq!(cpu.run_with(options, || 6 * 7).await?, 42);
//! assert_eq!(cpu.stats().counts.ok, 1);
//! # Ok(())
//! # }
//! ```

// `Pool::submit_future` builds a task around a future and offers it to the pool's `Dispatch`, which asks admission under
// the pool's one lock. A worker polls the task. When the task ends, the worker releases its permit, and the caller reads
// the answer through its handle.
//
// A file imports only from files that stand before it in this table:
//
// | file | contents |
// |---|---|
// | `group`, `plan`, `shared` | all pools; the settings of one pool; its state, and a task of any type |
// | `local` | the thread-local values of a worker |
// | `publish`, `sampler` | the pool's metrics, also the last ones as it is dropped; the sampler |
// | `worker`, `task`, `handle` | the worker loop, and the pool as the budget of cores sees it; the allocation of a task; the caller's handle to it |
// | `submit`, `slots`, `watch` | the handle to a pool; a pool, as its slots see it; what a dashboard reads |

mod group;
mod handle;
mod local;
mod plan;
mod publish;
mod sampler;
mod shared;
mod slots;
mod submit;
mod task;
#[cfg(feature = "dashboard")]
mod watch;
mod worker;

pub use self::submit::Pool;
pub use crate::admission::Counts;
pub use crate::metrics::batches::BatchCounts;
pub use crate::metrics::holdings::{HoldingStats, LoadedModel, ModelsStats, SlotsStats};
pub use crate::metrics::stats::{ActiveTask, PoolStats};
pub use crate::options::TaskOptions;

pub(crate) use self::group::Group;
pub(crate) use self::handle::CancelOnDrop;
pub(crate) use self::local::{current_task, give_answers, is_worker, record_times, with_current_task};
pub(crate) use self::plan::{Hooks, Plan};
pub(crate) use self::shared::{AnyTask, Shared, TaskRef};
pub(crate) use self::submit::{Rejected, Submission, always_ok};
pub(crate) use self::worker::{begin_in_place, end_in_place, perform};
pub(crate) use crate::dispatch::Backlog;
