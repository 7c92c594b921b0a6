//! The cores of the machine: how many there are, which pool may use them, and how many of its workers may be awake.
//!
//! Nothing here knows a lock or a thread, but for [`available`]. Time comes in as an argument, so that the same code is
//! driven by pools and by a machine in virtual time.

mod active_limit;
mod allotment;
mod available;
mod core_budget;
#[cfg(all(test, not(any(tower_offload_loom, tower_offload_shuttle))))]
mod virtual_time;

pub(crate) use self::active_limit::{ActiveLimit, Sampled, runnable};
pub(crate) use self::allotment::{Allot, MemberId, Report};
pub(crate) use self::available::available;
pub(crate) use self::core_budget::{CoreBudget, TICK};
