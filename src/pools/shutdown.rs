//! The end: pools stop taking tasks and finish what they have, up to a deadline.

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

/// What a shutdown finished and what it cut off.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct DrainReport {
    /// Pool by pool, in the order of the settings.
    pub pools: Vec<PoolDrain>,
    /// How long it took.
    pub took: Duration,
}

/// What the shutdown of one pool finished and what it cut off.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PoolDrain {
    /// The pool.
    pub pool: Workload,
    /// Tasks that were queued or in flight when the shutdown began, and ended in time, however they did.
    pub finished: u64,
    /// Tasks that were still queued at the deadline: they never started, and their callers were told so.
    pub given_up: u64,
    /// Tasks that were still in flight at the deadline.
    pub cut_off: u64,
}

impl Pools {
    /// Stops taking tasks at once, and finishes those that are queued or in flight, for at most `deadline` from here on.
    ///
    /// Every task that comes after this call, even before what it returns is awaited, is refused as
    /// [draining](crate::Reason::Draining). At the deadline the queued tasks are given up; what is in flight cannot be
    /// interrupted and goes on for as long as the process lives. The threads end when they find nothing to do. If this
    /// future is dropped, the pools go on draining without a deadline.
    ///
    /// A task that belongs to a request which was accepted before may submit further tasks. A task that calls this does not
    /// wait for itself.
    pub fn shutdown(&self, deadline: Duration) -> impl Future<Output = DrainReport> + Send + use<> {
        // Before the deadline is set: what it ends took no less.
        let start = Instant::now();
        self.drain_until(start, timer::sleep(deadline))
    }

    /// The same until `limit` ends; the report counts the time from `start` on.
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
    /// Tasks of the pool that the thread is in the middle of which began the drain: they wait for it.
    except: usize,
    /// The other tasks that were queued or in flight then.
    before: u64,
}

impl PoolDraining {
    /// Rejects every further task.
    fn begin(pool: &Pool) -> Self {
        pool.drain();
        let except = pool.current_tasks();
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
        self.pool.publish(&metrics::turn());
        let finished = self.before.saturating_sub(given_up + cut_off);
        PoolDrain { pool: self.pool.name().clone(), finished, given_up, cut_off }
    }
}

/// Ends when no pool has anything queued or in flight. A task of one pool may submit to another, so all are asked each time.
async fn poll_idle(drains: &[PoolDraining]) {
    poll_fn(|cx| {
        // Each is asked, so that each wakes this future.
        let busy = drains.iter().filter(|drain| !drain.poll_idle(cx)).count();
        if busy == 0 { Poll::Ready(()) } else { Poll::Pending }
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

    /// Tasks that were still queued at the deadline and never started, over all pools.
    #[must_use]
    pub fn given_up(&self) -> u64 {
        self.pools.iter().map(|pool| pool.given_up).sum()
    }

    /// Tasks that were still in flight at the deadline, over all pools.
    #[must_use]
    pub fn cut_off(&self) -> u64 {
        self.pools.iter().map(|pool| pool.cut_off).sum()
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
