//! The numbers of a pool at one instant.

use std::time::Duration;

use super::batches::BatchCounts;
use super::holdings::HoldingStats;
use crate::admission::Counts;
use crate::workload::Workload;

/// One pool at one instant: all numbers are read at once, under the pool's lock.
///
/// They obey *submitted = Σ results + queued + in flight*.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PoolStats {
    /// The pool's name.
    pub name: Workload,
    /// Threads that the pool has.
    pub workers: usize,
    /// Threads that the pool may have.
    pub max_workers: usize,
    /// Threads that are polling a task.
    pub active_threads: usize,
    /// Tasks that were admitted and have not ended; more than `active_threads` where tasks await something, or where they
    /// compute and there are fewer cores.
    pub in_flight: usize,
    /// Permits in use, which the limit bounds: fewer than `in_flight` where tasks run inside the permit of another, and
    /// where workers poll bodies without `hold`.
    pub permits_in_use: usize,
    /// Permits that may be in use at once.
    pub concurrency_limit: usize,
    /// Tasks that wait for a permit. More than `queue_capacity` only if an adaptive limit has just fallen: a task that
    /// was admitted to the queue is not rejected for that.
    pub queued_tasks: usize,
    /// Tasks that may wait for a permit.
    pub queue_capacity: usize,
    /// How long the oldest queued task has waited. A task that has a permit and waits for a worker counts too, although it is
    /// not part of `queued_tasks`.
    pub oldest_wait: Duration,
    /// The mean time of the latest tasks from their first poll to their end; `None` before the first end.
    pub mean_run: Option<Duration>,
    /// Whether the minimum queue wait has exceeded the target for a whole interval, or more tasks leave the queue unserved
    /// than free permits make up for.
    pub overloaded: bool,
    /// Whether the pool rejects every new task, and finishes those that it has.
    pub draining: bool,
    /// The pool's [load](crate::load): 1 means that as much arrives as the pool can do.
    pub load_ratio: f64,
    /// Streams: responses whose body is open after its head.
    pub streams: usize,
    /// Streams that may be open at once; 0 without a limit.
    pub streams_limit: usize,
    /// Bytes of streams that the pool has produced and no client has taken.
    pub stream_buffered_bytes: usize,
    /// How many tasks were submitted, and how they ended.
    pub counts: Counts,
    /// How many batches ended, by result; `None` in a pool without batches.
    pub batches: Option<BatchCounts>,
    /// The tasks that run, oldest first. Kept only while `verbose` is on.
    pub active_tasks: Vec<ActiveTask>,
    /// The pool's slots and models. They are read one after the other, and not under the pool's lock.
    pub holdings: HoldingStats,
}

/// A task that has begun and not ended.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ActiveTask {
    /// Its number: the pool's first task is 1.
    pub task_id: u64,
    /// The function, or the method and path of the request.
    pub function: String,
    /// Time since its first poll.
    pub running_for: Duration,
    /// The kernel's number of the thread that polls it at this instant; `None` while it awaits, and on systems other than
    /// Linux.
    pub thread: Option<i32>,
}

impl PoolStats {
    /// Active threads as a share of the threads that the pool may have, from 0 to 1.
    #[must_use]
    pub fn utilization(&self) -> f64 {
        ratio(self.active_threads, self.max_workers)
    }
}

/// `part` divided by `whole`; 0 if `whole` is 0.
#[expect(clippy::cast_precision_loss, reason = "no pool has 2^53 threads")]
pub(crate) fn ratio(part: usize, whole: usize) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}
