//! The lock of one pool, and what it protects: admission, the tasks that are ready to be polled, and the workers.
//!
//! | file | contents |
//! |---|---|
//! | `dispatch` | the lock, and the protocol by which no wake-up is lost |
//! | `state` | the state behind the lock; how a worker takes its next task |
//! | `workers` | which workers exist, park and poll, and which of them is woken next |
//! | `effects` | work that is deferred until the lock has been released |
//!
//! All of it is generic over the task, and calls no code of the application under the lock. The folder `checked` is for tests only: it
//! has the models of the protocol.

#[cfg(all(test, any(tower_offload_loom, tower_offload_shuttle)))]
mod checked;
#[allow(clippy::module_inception, reason = "it has the type that the module is named after")]
mod dispatch;
mod effects;
mod state;
mod workers;

pub(crate) use self::dispatch::{Admit, Backlog, Dispatch, Ending, MAX_TAKEN, RejectedOffer, WorkerEvent};
pub(crate) use self::effects::Effects;
pub(crate) use self::state::{Instantaneous, Offered};
pub(crate) use self::workers::{Wake, WorkerId};
