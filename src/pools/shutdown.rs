//! The end: pools stop taking jobs and finish what they have, up to a deadline.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
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
    /// Pool by pool, ordered by name.
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
    /// Jobs that were queued or in flight when the shutdown began, and ended in time, however they did.
    pub finished: u64,
    /// Jobs that were still queued at the deadline: they never started, and their callers were told so.
    pub given_up: u64,
    /// Jobs that were still in flight at the deadline.
    pub cut_off: u64,
}

impl Pools {
    /// Stops taking jobs at once, and finishes those that are queued or in flight, for at most `deadline` from here on.
    ///
    /// Every job that comes after this call, even before what it returns is awaited, is refused as
    /// [draining](crate::Cause::Draining). At the deadline the queued jobs are given up; what is in flight cannot be
    /// interrupted and goes on for as long as the process lives. The threads end when they find nothing to do. If this
    /// future is dropped, the pools go on draining without a deadline.
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
        let before: Vec<_> = self.iter().map(drain).collect();
        let pools = self.clone();
        async move {
            let in_time = first_of(limit, poll_idle(&pools)).await;
            let given_up: Vec<_> = pools.iter().map(|pool| if in_time { 0 } else { pool.give_up_queue() }).collect();
            let pools = pools.iter().zip(before).zip(given_up);
            let pools = pools.map(|((pool, before), given_up)| report(pool, before, given_up)).collect();
            DrainReport { pools, took: start.elapsed() }
        }
    }
}

/// Refuses every further job; how many there are to finish.
fn drain(pool: &Pool) -> u64 {
    pool.drain();
    let stats = pool.numbers();
    count(stats.queued_tasks + stats.in_flight)
}

fn report(pool: &Pool, before: u64, given_up: u64) -> PoolDrain {
    let cut_off = count(pool.numbers().in_flight);
    pool.close();
    pool.publish(&metrics::turn());
    let finished = before.saturating_sub(given_up + cut_off);
    PoolDrain { pool: pool.name().clone(), finished, given_up, cut_off }
}

/// Ends when no pool has anything queued or in flight.
async fn poll_idle(pools: &Pools) {
    for pool in pools.iter() {
        poll_fn(|cx| if pool.poll_idle(cx.waker()) { Poll::Ready(()) } else { Poll::Pending }).await;
    }
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

const fn count(jobs: usize) -> u64 {
    jobs as u64
}

// === impl DrainReport ===

impl DrainReport {
    /// Jobs that ended in time, over all pools.
    #[must_use]
    pub fn finished(&self) -> u64 {
        self.pools.iter().map(|pool| pool.finished).sum()
    }

    /// Jobs that were given up or cut off, over all pools.
    #[must_use]
    pub fn cut_off(&self) -> u64 {
        self.pools.iter().map(|pool| pool.given_up + pool.cut_off).sum()
    }
}

impl fmt::Display for DrainReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (finished, cut_off) = (self.finished(), self.cut_off());
        write!(f, "{finished} jobs finished and {cut_off} cut off in {:.3}s", self.took.as_secs_f64())?;
        for pool in self.pools.iter().filter(|pool| pool.given_up + pool.cut_off > 0) {
            write!(f, "; pool `{}`: {} never started, {} in flight", pool.pool, pool.given_up, pool.cut_off)?;
        }
        Ok(())
    }
}
