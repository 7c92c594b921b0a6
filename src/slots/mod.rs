//! Values that belong to the permits of a pool: model sessions and connections, one for each task in flight.
//!
//! | type | for |
//! |---|---|
//! | [`Slots`] | values that one task uses at a time, with `&mut`: a session, a connection. As many as the pool has permits |
//! | [`Models`] | many shared values by key, under a budget of bytes: a model for each customer |
//!
//! A task in flight has a permit of its pool. With [`Slots`], the permit also entitles it to a value. So the pool's limit
//! *is* the number of sessions or connections, and there is one queue in place of two: a task that has left the pool's
//! queue, with its deadline, priority and shedding, never waits for a value.
//!
//! ```
//! use tower_offload::{PoolConfig, Pools, slots::Slots};
//!
//! # struct Session;
//! # impl Session {
//! #     fn load(_path: &str) -> Result<Self, std::io::Error> { Ok(Self) }
//! #     fn run(&mut self, input: &[f32]) -> Result<f32, std::io::Error> { Ok(input.iter().sum()) }
//! # }
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let pools = Pools::builder().pool("inference", PoolConfig::new(2)).build()?;
//! let digits = Slots::builder(&pools, "inference")
//!     .make(|| Session::load("digits.onnx"))                          // on a worker, when a task needs a further one
//!     .warm_up(|session| session.run(&[0.0; 64]).map(drop))           // before it serves
//!     .build()                                                        // makes one now: a broken file stops the start
//!     .await?;
//!
//! // From anywhere: a task of the pool, with its queue.
//! let sum = digits.run(|session| session.run(&[1.0, 2.0])).await??;
//! assert_eq!(sum, 3.0);
//!
//! // In a handler or a closure that already runs in this pool: no second queue.
//! let inside = digits.clone();
//! let sum = pools.run_in_pool("inference", move || inside.here(|session| session.run(&[3.0]))).await???;
//! assert_eq!(sum, 3.0);
//!
//! // A new version, while the pool serves. If it cannot be loaded, nothing has changed.
//! let swapped = digits.swap(|| Session::load("digits-2.onnx")).await?;
//! assert!(swapped.is_complete());
//! # Ok(())
//! # }
//! ```
//!
//! # How many values there are
//!
//! At most one for each permit, and one more during a swap. They are made when tasks need them, and the value that was
//! used last is used first, so a pool that is never full has fewer. If an adaptive limit falls, values go as tasks put
//! them back. Two cases exceed the number, and are logged once: a [`SlotGuard`] that outlives the permit of its task, and
//! a future that runs inside the permit of another task and awaits.
//!
//! # Tasks within tasks
//!
//! A task that has a value and asks the same slots for another one, by `run`, `here` or `take`, gets
//! [`SlotError::Nested`] at once: with one permit it could only wait for itself. The same holds for a task that runs in
//! place while the task that has the value waits for it. Pass the value on in its place. Slots of other pools, and other
//! slots of the same pool, are not concerned.
//!
//! The pages on [models](crate::docs::models) and [connections](crate::docs::connections) say more.

mod bounds;
mod builder;
#[cfg(all(test, tower_offload_loom))]
mod checked;
mod guard;
mod inner;
mod lender;
mod loader;
mod models;
mod recipe;
mod request;
mod rollout;
#[allow(clippy::module_inception, reason = "it has the type that the module is named after")]
mod slots;
mod stack;
mod swap;
mod take;
#[cfg(test)]
mod tests;

pub use self::builder::{BuildError, SlotsBuilder};
pub use self::guard::SlotGuard;
pub use self::models::{ModelLease, Models, ModelsBuilder};
pub use self::request::Swapped;
pub use self::slots::Slots;
pub use crate::error::{MakeError, ModelError, SlotError};
pub use crate::pool::{HoldingStats, LoadedModel, ModelsStats, SlotsStats};
