//! The rules of a pool: which task runs now, which waits, which is rejected, and when waiting ends.
//!
//! Nothing here knows a clock, a lock, a thread, HTTP or Tokio. Time comes in as an argument, so that the same code is
//! driven by a pool under its lock and by a simulator (`tests/sim`) through millions of events.
//!
//! ```
//! use tower_offload::Reason;
//! use tower_offload::admission::{Admission, Timestamp, Offer, Outcome, Admitted, Settings};
//!
//! let mut admission = Admission::new(Settings::fixed(1).with_capacity(1), 42);
//! let (now, mut rejected) = (Timestamp::default(), Vec::new());
//!
//! let Ok(Admitted::InFlight(first)) = admission.offer(now, Offer::default(), &mut rejected) else { panic!() };
//! let Ok(Admitted::Queued(second)) = admission.offer(now, Offer::default(), &mut rejected) else { panic!() };
//! admission.store(second, "second");
//! assert_eq!(admission.offer(now, Offer::default(), &mut rejected), Err(Reason::QueueFull));
//!
//! assert!(admission.finish(now, first, Outcome::Ok, None));
//! assert_eq!(admission.take(now, &mut rejected).map(|taken| taken.task), Some("second"));
//! ```
//!
//! # The rules
//!
//! After every call *submitted = Σ results + queued + in flight*. No more tasks than the limit and the capacity
//! together wait or have a permit, and no task starts while all permits are in use. Each rule is stated in full at its
//! code:
//!
//! | rule | where |
//! |---|---|
//! | **Expiry.** A task ends when it has waited for the queue timeout, or at its own deadline if that is sooner. Its caller is notified then, and the task never starts. A *patient* task has no queue timeout | `core/leaving.rs` |
//! | **Room.** A full queue sheds the newest task of a lower level, or else of the caller with most tasks, for a task that has more right to the queue | `core/leaving.rs` |
//! | **Order.** First in, first out within a level, until that is known to be useless work; then the newest first, and tasks that waited too long are shed | `overload.rs` |
//! | **Levels.** The highest [`Priority`] is next; a lower level has a thirty-third of the workers' time | `priority_queue.rs` |
//! | **Callers** of one level have equal shares of the workers' time, and a full queue sheds a task of the caller with most | `fair_queue.rs` |
//! | **Batches.** Tasks of one group join the one that a worker took, up to the limits of a batch and the nearest deadline in it | `batch.rs`, `core/sharing.rs` |
//! | **The limit** is fixed, or found by experiment | `limiter.rs` |
//! | **Overload is reported** while even the shortest waits of an interval are too long; no decision depends on it | `codel.rs` |
//! | **Retry-After** is the time that the queue takes to drain at the present rate | `drain_rate.rs` |
//!
//! *First, do no harm*: below capacity an [`Adaptive`](Discipline::Adaptive) queue rejects fewer than one in a thousand of the
//! tasks that a [`Fifo`](Discipline::Fifo) one with the same settings serves. `tests/sim/harm.rs` compares the two, and
//! `tests/sim/README.md` has the share that was measured.
//!
//! A full queue rejects in constant time, before anything is done for the task. No task is shed while a permit is free
//! for it. A pool that was idle for ten minutes forgets what it learned.
//!
//! Each task costs its payload and 48 bytes. No call costs more when more tasks wait, except to sort a deadline among the
//! others, and a call that ends many tasks.

mod batch;
mod codel;
mod core;
mod counts;
mod drain_rate;
mod fair_queue;
mod limiter;
mod mean;
mod occupancy;
mod overload;
mod priority_queue;
mod random;
mod settings;
mod slab;
mod timestamp;

pub use self::batch::{BatchItem, BatchLimits, BatchTime, Growth, Join, Prediction};
pub use self::core::{Admission, Admitted, Finish, Rejected, SharedPermit, Started};
pub use self::counts::{Counts, Outcome, Snapshot};
pub use self::occupancy::Demand;
pub(crate) use self::random::mix;
pub use self::settings::{Bounds, Discipline, Limit, Offer, Settings};
pub use self::slab::Key;
pub use self::timestamp::Timestamp;
pub use crate::terms::Priority;
