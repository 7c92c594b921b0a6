//! What code inside of a task can do: learn that it should stop, and keep its permit.
//!
//! | function | |
//! |---|---|
//! | [`checkpoint`], [`is_cancelled`] | whether the running task should stop: for code that blocks or computes |
//! | [`cancelled`] | waits until the running task should stop: for futures |
//! | [`hold_permit`] | keeps the permit of the running task beyond its response |
//!
//! Outside of a task, nothing says stop, and there is no permit to keep.

// `task` is the running task as the body of its response sees it, `stream` one stream of the pool, and `batch` the batch
// that a task leads.

mod batch;
mod checkpoint;
mod held_permit;
mod stream;
mod task;

pub use self::checkpoint::{cancelled, checkpoint, is_cancelled};
pub use self::held_permit::{HeldPermit, hold_permit};

pub(crate) use self::batch::{Rider, Riders};
pub(crate) use self::stream::{FrameTimes, OpenStream};
pub(crate) use self::task::{CurrentTask, deadline, has_panicked};
