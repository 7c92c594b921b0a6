//! Shutdown: pools reject new tasks and finish the accepted ones, up to a time limit.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::Pools;
use crate::metrics;
use crate::pool::Pool;
use crate::timer;
use crate::workload::Workload;

/// The result of a shutdown: how many tasks ended, and how many were cut off.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct DrainReport {
    /// Pool by pool, in the order of the settings.
    pub pools: Vec<PoolDrain>,
    /// The duration of the shutdown.
    pub took: Duration,
}

/// The result of the shutdown of one pool.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PoolDrain {
    /// The pool.
    pub pool: Workload,
    /// Tasks that were queued or in flight when the shutdown began and ended in time, with whatever result.
    pub finished: u64,
    /// Tasks that were still queued at the limit: they were rejected and never started.
    pub given_up: u64,
    /// Tasks that were still in flight at the limit.
    pub cut_off: u64,
}

impl Pools {
    /// Rejects new tasks from this call on, and waits until the queued tasks and those in flight have ended, for at
    /// most `limit`.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tower_offload::{Io, Pools};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let pools = Pools::default();
    /// let saved = pools.submit_to_pool(Io, || "saved")?;
    /// let report = pools.shutdown(Duration::from_secs(10)).await;
    /// assert!(report.is_complete());
    /// assert_eq!(saved.await?, "saved");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// New tasks are rejected with [`Draining`](crate::Reason::Draining), even before the returned future is polled.
    /// After `limit`, queued tasks are rejected too. A task in flight cannot be interrupted: it runs to its end or to
    /// the end of the process, and [`checkpoint`](crate::checkpoint) tells it that it is cut off. Threads end when they
    /// have no more tasks, which may be shortly after this future completes: so may the hooks of
    /// [`on_worker_stop`](crate::pools::PoolsBuilder::on_worker_stop). If the future is dropped, the pools continue to drain
    /// without a limit.
    ///
    /// A task that belongs to an accepted request may still submit tasks. A task that calls this does not wait for
    /// itself.
    pub fn shutdown(&self, limit: Duration) -> impl Future<Output = DrainReport> + Send + use<> {
        // Taken before the timer is set, so that the reported time is not shorter than the limit.
        let start = Instant::now();
        self.drain_until(start, timer::sleep(limit))
    }

    /// Does the same until `limit` ends. The report counts the time from `start`.
    pub(crate) fn drain_until<L>(&self, start: Instant, limit: L) -> impl Future<Output = DrainReport> + Send + use<L>
    where
        L: Future<Output = ()> + Send,
    {
        self.announce_drain();
        let drains: Vec<_> = self.iter().map(PoolDraining::begin).collect();
        async move {
            let in_time = first_of(limit, poll_idle(&drains)).await;
            let given_up: Vec<_> = drains.iter().map(|drain| if in_time { 0 } else { drain.pool.cut_off() }).collect();
            let pools = drains.iter().zip(given_up).map(|(drain, given_up)| drain.report(given_up)).collect();
            DrainReport { pools, took: start.elapsed() }
        }
    }
}

/// The drain of one pool.
struct PoolDraining {
    pool: Pool,
    /// Tasks of the pool that the thread which began the drain is polling. They wait for the drain, so it does not wait
    /// for them.
    except: usize,
    /// The other tasks that were queued or in flight when the drain began.
    before: u64,
}

impl PoolDraining {
    /// Rejects every further task.
    fn begin(pool: &Pool) -> Self {
        pool.drain();
        let except = pool.current_keys().map_or(0, |(_, waiting)| 1 + waiting.len());
        let stats = pool.numbers();
        let before = (stats.queued_tasks + stats.in_flight).saturating_sub(except);
        Self { pool: pool.clone(), except, before: before as u64 }
    }

    fn poll_idle(&self, cx: &Context<'_>) -> bool {
        self.pool.poll_idle(self.except, cx.waker())
    }

    fn report(&self, given_up: u64) -> PoolDrain {
        let cut_off = self.pool.numbers().in_flight.saturating_sub(self.except) as u64;
        self.pool.close();
        self.pool.publish(&metrics::lock_publishing());
        let finished = self.before.saturating_sub(given_up + cut_off);
        PoolDrain { pool: self.pool.name().clone(), finished, given_up, cut_off }
    }
}

/// Ends when no pool has a task queued or in flight. A task of one pool may submit to another, so each poll checks all
/// pools.
async fn poll_idle(drains: &[PoolDraining]) {
    poll_fn(|cx| {
        // Every pool is checked, so that every pool wakes this future.
        let unfinished = drains.iter().filter(|drain| !drain.poll_idle(cx)).count();
        if unfinished == 0 { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

/// Whether `work` ended before `limit` did.
async fn first_of(limit: impl Future<Output = ()>, work: impl Future<Output = ()>) -> bool {
    let (mut limit, mut work) = (pin!(limit), pin!(work));
    poll_fn(|cx| match (work.as_mut().poll(cx), limit.as_mut().poll(cx)) {
        (Poll::Ready(()), _) => Poll::Ready(true),
        (Poll::Pending, Poll::Ready(())) => Poll::Ready(false),
        _ => Poll::Pending,
    })
    .await
}

// === impl DrainReport ===

impl DrainReport {
    /// Tasks that ended in time, over all pools.
    #[must_use]
    pub fn finished(&self) -> u64 {
        self.pools.iter().map(|pool| pool.finished).sum()
    }

    /// Tasks that were still queued at the limit and never started, over all pools.
    #[must_use]
    pub fn given_up(&self) -> u64 {
        self.pools.iter().map(|pool| pool.given_up).sum()
    }

    /// Tasks that were still in flight at the limit, over all pools.
    #[must_use]
    pub fn cut_off(&self) -> u64 {
        self.pools.iter().map(|pool| pool.cut_off).sum()
    }

    /// Whether every task ended in time.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.unfinished() == 0
    }

    /// Tasks that did not end in time: those given up and those cut off, over all pools.
    #[must_use]
    pub fn unfinished(&self) -> u64 {
        self.given_up() + self.cut_off()
    }
}

impl fmt::Display for DrainReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (finished, unfinished) = (self.finished(), self.unfinished());
        write!(f, "{finished} tasks finished and {unfinished} unfinished in {:.3}s", self.took.as_secs_f64())?;
        for pool in self.pools.iter().filter(|pool| pool.given_up + pool.cut_off > 0) {
            write!(f, "; pool `{}`: {} never started, {} in flight", pool.pool, pool.given_up, pool.cut_off)?;
        }
        Ok(())
    }
}
