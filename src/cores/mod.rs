//! The cores of the machine: how many there are, which pool may use them, and how many of its workers may be awake.
//!
//! `awake_limit`, `allotment` and `core_budget` know no lock, no thread and no clock. Time comes in as an argument, so
//! that the same code is driven by pools and by a machine in virtual time. `shared_cores` connects them to the pools.

mod allotment;
mod available;
mod awake_limit;
mod core_budget;
mod shared_cores;
#[cfg(all(test, not(any(tower_offload_loom, tower_offload_shuttle))))]
mod virtual_time;

pub(crate) use self::allotment::{Allot, Report};
pub(crate) use self::awake_limit::{AwakeLimit, Sampled, runnable};
pub(crate) use self::shared_cores::{Member, Membership, SharedCores};
