//! The load: how much is asked of the pools, over how much they can do.
//!
//! It is one number that people, autoscalers and balancers can act on. 1 means that there is as much work as can be
//! done. It is not capped: at 3, three times too much comes, rejected tasks included. An idle pool has 0.
//!
//! ```
//! use tower_offload::Pools;
//!
//! let pools = Pools::default();
//! let load = pools.load();
//! assert_eq!(load.ratio, 0.0);
//! assert!(load.pools.iter().all(|pool| pool.ratio == 0.0));
//! ```
//!
//! # Definition
//!
//! All of it is counted over the last 15 s, or since the pools were made if that is less.
//!
//! The load of a pool is the greater of
//!
//! - **permits**: *arrivals a second × mean time of a permit for each task ÷ concurrency limit*, and
//! - **CPU**: *arrivals a second × mean CPU time of a task ÷ cores*.
//!
//! Arrivals are all tasks that were submitted, rejected ones included. The means are those of the tasks that were
//! started: the time for which permits were used, and the CPU time of the pool's workers, each divided by the number of
//! tasks that were started. A task that has a permit and waits for a worker is in flight, as in the metrics.
//!
//! Written differently, the load is *the share of the capacity in use × arrivals for each task that was started*. Below
//! capacity every task is started, so the second factor is 1. Two rules complete it:
//!
//! - The second factor is at least 1. A pool that works off its queue is in full use, although few tasks arrive.
//! - If tasks were left waiting or rejected, and fewer than eight were started in 15 s, the second factor is counted over
//!   as many seconds as it takes to find eight, and at most over five minutes. If tasks arrive and none was started in
//!   that time, the load is at least 1.
//!
//! The load of the process is the greatest of the pools' loads, or the sum of their CPU parts if that is greater: five
//! pools with a CPU part of 0.25 are 1.25 together. If the settings have
//! [`scale_by`](crate::config::Performance::scale_by), only the pools that it names count.
//!
//! # How it is measured
//!
//! Nothing is computed for each task but one addition under the lock that admission takes anyway: the time for which
//! permits were used. Everything else is a difference of counters that exist. A pool reads them once a second while it
//! has work, and until it has had none for 15 s, on the helper thread that publishes the metrics. If that thread has not
//! read them for a second, [`Pools::load`](crate::Pools::load) does so itself. Counters of an idle pool do not change, so
//! its load is right without any thread.
//!
//! On Linux, the CPU time is that of the workers' threads, as the kernel counts it. Elsewhere it is the time that workers
//! spent in polls, which is more if tasks block in them.

mod meter;
mod pool_load;
#[cfg(feature = "__internals")]
#[doc(hidden)]
pub mod window;
#[cfg(not(feature = "__internals"))]
#[allow(unreachable_pub, reason = "the tests of this repository use it")]
mod window;

pub(crate) use self::meter::LoadMeter;
pub(crate) use self::pool_load::Scale;
pub use self::pool_load::{Load, PoolLoad};
#[cfg(test)]
pub(crate) use self::window::Measured;

#[cfg(all(test, not(any(tower_offload_loom, tower_offload_shuttle))))]
mod tests;
