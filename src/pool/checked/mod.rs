//! The pool under two model checkers.
//!
//! `model` is a pool whose threads belong to the checker. Loom runs the scenes of `models` through every interleaving of
//! a few threads, up to a bound on preemptions; shuttle runs the scene of `schedules`, which has many threads, under random
//! schedules. The lock, the workers and the state of a task are those that ship; only the loop around them is repeated.

mod model;
#[cfg(tower_offload_loom)]
mod models;
#[cfg(tower_offload_shuttle)]
mod schedules;
