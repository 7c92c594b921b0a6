//! Overload control in virtual time: the rules of admission, and those of others, under the same traffic.
//!
//! `README.md` in this folder says what is simulated and has the tables that these tests print.

mod laws;
mod limits;
mod ordinary;
mod overload;
mod policy;
mod random;
mod reference_limits;
mod reference_queues;
mod score;
mod world;
