//! The rules of a pool: who runs now, who waits, who is refused, and when waiting ends.
//!
//! Nothing here knows a clock, a lock, a thread, HTTP or Tokio. Time comes in as an argument, so that the same code is
//! driven by a pool under its lock and by a simulator through millions of events.
//!
//! After every call *submitted = Σ results + queued + in flight*.

mod counts;
mod moment;
mod queue;
mod rules;

pub use self::counts::{Counts, Outcome};
pub use self::moment::Moment;
pub use self::queue::Key;
pub use self::rules::{Admission, Gone, Limit, Offer, Place, Settings, Snapshot, Taken};
