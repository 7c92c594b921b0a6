//! Selection of the least loaded of several pools.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::{Select, Selection, Target};
use crate::admission::mix;
use crate::error::UnknownPool;
use crate::pool::{Backlog, Pool};
use crate::pools::Pools;
use crate::workload::PoolName;

/// Selects the less loaded of two pools that are drawn at random: the one with the shorter expected wait.
///
/// It is for pools that do the same, such as one for each GPU, or for each NUMA node. Two random choices are nearly as good
/// as a look at all pools, and do not send every request of a moment to the same one (Mitzenmacher, "The power of two
/// choices in randomized load balancing", 2001).
///
/// The expected wait of a new task is the number of tasks in flight and queued, divided by the concurrency limit, times the
/// pool's mean run time. If that is not known yet, it counts as the other's. A pool whose tasks fail at once would look fast,
/// so the mean run time of a pool counts as at least a quarter of the other's.
///
/// ```
/// use axum::{Router, routing::post};
/// use tower_offload::{PoolConfig, PoolLayer, Pools};
///
/// let pools = Pools::builder().pool("gpu0", PoolConfig::new(1)).pool("gpu1", PoolConfig::new(1)).build()?;
/// let layer = PoolLayer::least_loaded(&pools, ["gpu0", "gpu1"])?;
/// let app: Router = Router::new().route("/generate", post(|| async { "done" }).route_layer(layer));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct LeastLoaded {
    pools: Arc<[Pool]>,
    /// The state of a generator of random numbers.
    draws: Arc<AtomicU64>,
}

impl LeastLoaded {
    /// Selects among the pools of these names.
    ///
    /// # Errors
    ///
    /// If one of the pools does not exist. [Disabled](Pools::disabled) pools accept every name; requests then run inline.
    ///
    /// # Panics
    ///
    /// If there is no name.
    #[track_caller]
    pub fn new<N: PoolName>(pools: &Pools, names: impl IntoIterator<Item = N>) -> Result<Self, UnknownPool> {
        let mut names = names.into_iter().peekable();
        assert!(names.peek().is_some(), "there is no pool to choose from");
        let chosen: Result<Vec<_>, _> = match pools.is_disabled() {
            true => Ok(Vec::new()),
            false => names.map(|name| pools.get(name).cloned()).collect(),
        };
        Ok(Self { pools: chosen?.into(), draws: Arc::default() })
    }

    /// The pool for the next task; `None` if the pools are disabled.
    #[must_use]
    pub fn choose(&self) -> Option<&Pool> {
        let count = self.pools.len();
        if count < 2 {
            return self.pools.first();
        }
        // SplitMix64: its state grows by this constant, and each number is mixed from it.
        let number = mix(self.draws.fetch_add(0x9E37_79B9_7F4A_7C15, Ordering::Relaxed));
        let (first, second) = two_of(count, number);
        let (first, second) = (&self.pools[first], &self.pools[second]);
        Some(if waits_longer(first.backlog(), second.backlog()) { second } else { first })
    }
}

/// Two different numbers below `count`.
fn two_of(count: usize, number: u64) -> (usize, usize) {
    let (low, high) = ((number & 0xFFFF_FFFF) as usize, (number >> 32) as usize);
    let first = low % count;
    (first, (first + 1 + high % (count - 1)) % count)
}

/// Whether a new task would wait longer in the first pool than in the second.
fn waits_longer(first: Backlog, second: Backlog) -> bool {
    let most = first.run.max(second.run).max(Duration::from_nanos(1));
    let wait = |pool: Backlog| {
        let run = if pool.run.is_zero() { most } else { pool.run.max(most / 4) };
        pool.tasks as f64 / pool.limit.max(1) as f64 * run.as_secs_f64()
    };
    wait(first) > wait(second)
}

impl<Req> Select<Req> for LeastLoaded {
    fn select(&self, _request: &Req) -> Selection {
        self.choose().map_or_else(Selection::inline, |pool| Selection::new(Target::Pool(pool.clone())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backlog(tasks: usize, limit: usize, run: u64) -> Backlog {
        Backlog { tasks, limit, run: Duration::from_millis(run) }
    }

    #[test]
    fn the_wait_is_that_of_the_tasks_before_over_the_permits() {
        assert!(waits_longer(backlog(5, 1, 10), backlog(4, 1, 10)));
        assert!(!waits_longer(backlog(5, 2, 10), backlog(4, 1, 10)));
        assert!(waits_longer(backlog(5, 1, 20), backlog(6, 1, 10)));
        assert!(!waits_longer(backlog(0, 1, 10), backlog(0, 1, 5)), "both are idle");
    }

    #[test]
    fn a_pool_whose_tasks_fail_at_once_does_not_take_all() {
        assert!(waits_longer(backlog(5, 1, 1), backlog(1, 1, 1000)));
        assert!(!waits_longer(backlog(3, 1, 1), backlog(1, 1, 1000)));
    }

    #[test]
    fn a_run_time_that_is_not_known_counts_as_the_others() {
        assert!(waits_longer(backlog(2, 1, 0), backlog(1, 1, 1000)));
        assert!(waits_longer(backlog(1, 1, 0), backlog(0, 1, 0)));
    }

    #[test]
    fn two_different_pools_are_drawn_and_each_pair_as_often() {
        for count in 2..=6 {
            let mut drawn = vec![vec![0; count]; count];
            for number in 0..10_000 {
                let (first, second) = two_of(count, mix(number));
                drawn[first][second] += 1;
            }
            let fair = 10_000 / (count * (count - 1));
            for (first, pairs) in drawn.iter().enumerate() {
                for (second, &times) in pairs.iter().enumerate() {
                    let wanted = if first == second { 0..=0 } else { fair * 3 / 4..=fair * 5 / 4 };
                    assert!(wanted.contains(&times), "{first} and {second} of {count}: {times} times");
                }
            }
        }
    }
}
