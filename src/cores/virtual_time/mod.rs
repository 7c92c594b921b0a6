//! Tests of the pool's policies on machines in virtual time.

mod core_budget_order;
mod core_budget_sim;
