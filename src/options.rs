//! How a closure or a future runs in a pool: by when, how urgently, and on whose behalf.

use crate::terms::{Caller, Deadline, Priority, Terms};

/// The options of one task, for [`Pool::run_with`](crate::Pool::run_with) and
/// [`Pool::submit_with`](crate::Pool::submit_with).
///
/// A task that is submitted by another task of a pool inherits what is not set here: the deadline, the priority and the
/// fairness key of the request that both belong to. [`independent`](Self::independent) turns that off.
///
/// ```
/// use std::time::Duration;
/// use tower_offload::{Cpu, Deadline, Pools, Priority, pool::TaskOptions};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let cpu = Pools::default().get(Cpu)?.clone();
/// let options = TaskOptions::new().deadline(Deadline::after(Duration::from_secs(2))).priority(Priority::Low);
/// let sum = cpu.run_with(options, || (1..=10).sum::<u32>()).await?;
/// assert_eq!(sum, 55);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct TaskOptions {
    pub(crate) deadline: Option<Deadline>,
    pub(crate) priority: Option<Priority>,
    pub(crate) caller: Option<Caller>,
    independent: bool,
}

impl TaskOptions {
    /// Everything is inherited; outside of a pool's tasks: no deadline, [`Priority::Normal`] and no fairness key.
    pub const fn new() -> Self {
        Self { deadline: None, priority: None, caller: None, independent: false }
    }

    /// A task that is still queued at its deadline never starts, and its caller gets
    /// [`DeadlineExceeded`](crate::Reason::DeadlineExceeded). One that runs learns of it from
    /// [`checkpoint`](crate::checkpoint).
    pub const fn deadline(mut self, deadline: Deadline) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// How important the task is beside the others of its pool.
    pub const fn priority(mut self, priority: Priority) -> Self {
        self.priority = Some(priority);
        self
    }

    /// The caller, for fair queueing: tasks of different callers take turns, however many each has queued.
    pub const fn caller(mut self, caller: Caller) -> Self {
        self.caller = Some(caller);
        self
    }

    /// Nothing is inherited: the task belongs to no request.
    pub const fn independent(mut self) -> Self {
        self.independent = true;
        self
    }

    /// What a request asks of its pool; what the layer chose for it goes first. The ordinary priority of `terms` counts as
    /// not set.
    pub(crate) fn of_request(terms: Terms, priority: Option<Priority>, caller: Option<Caller>) -> Self {
        let asked = Some(terms.priority).filter(|&priority| priority != Priority::default());
        Self {
            deadline: terms.deadline,
            priority: priority.or(asked),
            caller: caller.or(terms.caller),
            independent: false,
        }
    }

    /// Fills what is not set from the task that submits this one.
    pub(crate) fn inherit(self, parent: &Self) -> Self {
        if self.independent {
            return self;
        }
        Self {
            deadline: self.deadline.or(parent.deadline),
            priority: self.priority.or(parent.priority),
            caller: self.caller.or(parent.caller),
            independent: false,
        }
    }
}
