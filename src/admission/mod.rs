//! The rules of a pool: who runs now, who waits, who is refused, and when waiting ends.
//!
//! Nothing here knows a clock, a lock, a thread, HTTP or Tokio. Time comes in as an argument, so that the same code is
//! driven by a pool under its lock and by a simulator (`tests/sim`) through millions of events.
//!
//! ```
//! use tower_offload::Cause;
//! use tower_offload::admission::{Admission, Timestamp, Offer, Outcome, Admitted, Settings};
//!
//! let mut admission = Admission::new(Settings::fixed(1).with_capacity(1), 42);
//! let (now, mut evicted) = (Timestamp::default(), Vec::new());
//!
//! let Ok(Admitted::InFlight(first)) = admission.offer(now, Offer::default(), &mut evicted) else { panic!() };
//! let Ok(Admitted::Queued(second)) = admission.offer(now, Offer::default(), &mut evicted) else { panic!() };
//! admission.store(second, "second");
//! assert_eq!(admission.offer(now, Offer::default(), &mut evicted), Err(Cause::QueueFull));
//!
//! assert!(admission.finish(now, first, Outcome::Ok, None));
//! assert_eq!(admission.take(now, &mut evicted).map(|taken| taken.task), Some("second"));
//! ```
//!
//! # The rules
//!
//! After every call *submitted = Σ results + queued + in flight*, no more than the limit and the capacity together wait
//! or are in flight, and nothing starts while as many are in flight as the limit says. Each is decided on a slower clock than the one before it, so that no
//! two of them fight over one signal:
//!
//! 1. **Expiry**, at once. A task ends when it has waited for the queue timeout, or at its own deadline if that is
//!    sooner. Its caller hears of it then, and it never starts.
//! 2. **Lateness**, by the interval. What is measured is one number, the exact wait of the task that waits longest, each
//!    time one is taken. A wait above the *target* is late. When every wait of an *interval* was late, there is a
//!    standing queue: the pool is overloaded, until a wait is not late. This is CoDel's rule. An
//!    [`Adaptive`](Discipline::Adaptive) queue takes its newest task first while that lasts, because those who have just
//!    come are still there when it is done, and sheds tasks that waited two targets; a [`Fifo`](Discipline::Fifo) one
//!    only shows it. Target and interval follow the pool's own execution time, within their [`Bounds`], and how long
//!    those waited who left unserved.
//! 3. **The limit**, by the experiment: fixed, or adaptive; `limiter.rs` has the method.
//!
//! A full queue refuses in constant time, before anything is done for the task. It makes room for a task of a higher
//! [`Priority`] by shedding the newest of the lowest, and for a caller with little in it by shedding from the one with
//! most.
//!
//! The highest level that waits is next. Each level below it that is passed over 32 times in a row has a turn, so what
//! is low is slow and not starved. (Apollo's router ages by moving a task up a level for each one taken, which gives a
//! flood of low ones half of the pool. A share by count cannot be taken over by a flood, however old it is.) Lateness
//! is known for each level by itself: a flood of low tasks is shed while normal ones wait in order beside it.
//!
//! # Constants
//!
//! | what | value | from |
//! |---|---|---|
//! | target | 5 execution times, at least 5 ms | folly's Codel, "Fail at Scale" (ACM Queue, 2015): 5 ms for tasks around 1 ms |
//! | execution time, for the target | as if as many ran as the limit says | where cores are what is short, those within the limit wait for one, rather than share it and take as much longer |
//! | but at most | a quarter of the wait of those who left | `tests/sim`: where execution slows down, five times it can be all that clients wait |
//! | interval | 20 targets, at least 100 ms | CoDel, and folly's |
//! | interval soon after an overload | a quarter | tried in `tests/sim`: a load of 1.4 times the capacity crosses the target now and then |
//! | shed above | 2 targets | folly's Codel; Breakwater (OSDI 2020) |
//! | patience of a level | 32 starts | so that three levels below one cost it less than a tenth |
//! | virtual queues, hand | 64, 8 | Kubernetes API Priority and Fairness (KEP-1040) |
//! | memory of a mean | 128 tasks | follows a change of the workload within about that many |
//!
//! Every task costs its payload and 56 bytes; none of the calls above costs more when more wait, but for a deadline's
//! place in its heap, and a call that ends many tasks.

mod codel;
mod core;
mod counts;
mod deadlines;
mod drain_rate;
mod fair_queue;
mod limiter;
mod mean;
mod overload;
mod permits;
mod priority_queue;
mod random;
mod settings;
mod slab;
mod timestamp;

pub use self::core::{Admission, Admitted, Evicted, Started};
pub use self::counts::{Counts, Outcome, Snapshot};
pub use self::settings::{Bounds, Discipline, Limit, Offer, Settings};
pub use self::slab::Key;
pub use self::timestamp::Timestamp;
pub use crate::terms::Priority;
