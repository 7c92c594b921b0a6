//! The pool under two model checkers.
//!
//! `model` is a pool whose threads belong to the checker. Loom runs the scenes of `models`, which have few threads,
//! through every interleaving up to a bound on preemptions. Shuttle runs the scenes of `schedules`, which have many
//! threads, under random schedules. The lock, the workers and the state of a task are the real ones; `model` repeats
//! only the code around them.

mod model;
#[cfg(tower_offload_loom)]
mod models;
#[cfg(tower_offload_shuttle)]
mod schedules;
