//! One pool: its workers, its queue, the jobs in it, and the numbers it shows.
//!
//! `submit` builds a job around a future and offers it to `dispatch`, which asks `admission` under the pool's one lock.
//! A `worker` polls the job. The `permit` inside the job comes home when the job is dropped, and the `handle` gives
//! the result to the caller.

mod completions;
mod context;
mod crew;
mod dispatch;
mod handle;
mod job;
mod level;
#[cfg(all(test, not(any(tower_offload_loom, tower_offload_shuttle))))]
mod level_sim;
#[cfg(all(test, any(tower_offload_loom, tower_offload_shuttle)))]
mod model;
#[cfg(all(test, tower_offload_loom))]
mod models;
mod permit;
mod publish;
#[cfg(all(test, tower_offload_shuttle))]
mod schedules;
mod shared;
mod stats;
mod submit;
mod task;
mod thread_state;
mod watch;
mod worker;

pub use self::handle::JobHandle;
pub use self::stats::{ActiveTask, PoolStats};
pub use self::submit::Pool;
pub use crate::admission::Counts;

pub(crate) use self::handle::{Pending, block_on};
pub(crate) use self::shared::Plan;

pub(crate) use self::stats::ratio;
pub(crate) use self::submit::{Submission, always_ok};
pub(crate) use self::task::name_of;
