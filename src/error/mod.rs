//! Errors: the reasons why a task gave no result, and the types that carry them.
//!
//! | error | given by |
//! |---|---|
//! | [`Rejection`] | every part of the crate; it has the pool, the [`Reason`], and whether the task had started |
//! | [`TaskError`] | closures and futures in a pool |
//! | [`OffloadError`] | services behind [`PoolLayer::errors`](crate::PoolLayer::errors) |
//! | [`SlotError`], [`MakeError`] | [`Slots`](crate::slots::Slots): closures that use a value, and why there is none |
//! | [`ModelError`] | [`Models`](crate::slots::Models): closures that use a model, and why there is none |
//! | [`BatchError`] | items of a [`Batch`](crate::batch::Batch) |
//! | [`Cancelled`] | [`checkpoint`](crate::checkpoint), to the code of a task |
//! | [`UnknownPool`] | everything that takes the name of a pool |
//!
//! [`Display`](std::fmt::Display) shows a sentence for people, [`Debug`](std::fmt::Debug) shows every field. A `main`
//! that returns an error prints its fields, so print errors for people yourself:
//!
//! ```
//! fn run() -> Result<(), Box<dyn std::error::Error>> {
//!     let pools = tower_offload::Pools::default();
//!     pools.get("cpu")?;
//!     Ok(())
//! }
//!
//! fn main() -> std::process::ExitCode {
//!     if let Err(error) = run() {
//!         eprintln!("error: {error}");
//!         return std::process::ExitCode::FAILURE;
//!     }
//!     std::process::ExitCode::SUCCESS
//! }
//! ```

mod batch;
mod cancelled;
mod model;
mod offload;
mod panic;
mod rejection;
mod slot;
mod task;
mod unknown_pool;

pub use self::batch::BatchError;
pub use self::cancelled::Cancelled;
pub use self::model::ModelError;
pub use self::offload::OffloadError;
pub use self::panic::Panic;
pub use self::rejection::{Reason, Rejection};
pub use self::slot::{MakeError, SlotError};
pub use self::task::TaskError;
pub use self::unknown_pool::UnknownPool;
