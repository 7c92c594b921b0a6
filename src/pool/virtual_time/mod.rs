//! Simulations of a pool's workers in virtual time.

mod level_sim;
