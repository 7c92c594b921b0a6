//! Overload control in virtual time: the rules of admission, and those of others, under the same traffic.
//!
//! `README.md` in this folder says what is simulated and has the tables that these tests print.

mod batches;
mod fairness;
mod found;
mod harm;
mod laws;
mod limits;
mod ordinary;
mod overload;
mod policy;
mod random;
mod reference_limits;
mod reference_queues;
mod replay;
mod scaling;
mod score;
mod world;

/// The seeds of a test: as many as it says, or as `SIM_SEEDS` does.
fn seeds(usual: u64) -> impl Iterator<Item = u64> {
    let wanted = std::env::var("SIM_SEEDS").ok().and_then(|seeds| seeds.parse().ok());
    1..=wanted.unwrap_or(usual)
}

/// The seeds of a table that shows the worst case.
fn slow_seeds() -> impl Iterator<Item = u64> {
    seeds(5)
}
