//! The parts of a task that do not depend on its pool.
//!
//! | file | contents |
//! |---|---|
//! | `state` | the state of a task in one atomic word: its phase, its wake-ups, and the signals for its code |
//! | `future` | the future that it polls |
//! | `context` | the context of its submitter: the Tokio handle, the span, the captures of the application's hooks |
//! | `continuation` | what it does after its answer |
//! | `item` | what an item of a batch has in addition |
//! | `log` | the log of single tasks |
//!
//! `pool/task.rs` puts them together, with the caller's waker and the answer, in one allocation.

mod context;
mod continuation;
mod future;
mod item;
mod log;
mod state;

pub(crate) use self::context::{Capture, TaskContext};
pub(crate) use self::continuation::{Continuation, ContinuationFuture, combined};
pub(crate) use self::future::{Boxed, TaskFuture};
pub(crate) use self::item::{Batch, BatchItem, ItemHead};
pub(crate) use self::log::{LogEntry, RunningTasks, log_rejection};
pub(crate) use self::state::{Begun, Signals, TaskState, Wakeup};
