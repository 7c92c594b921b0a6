//! The options of one task: its deadline, its priority, and its caller.

use crate::terms::{Caller, Deadline, Priority, Terms};

/// The options of one task, for [`Pool::run_with`](crate::Pool::run_with) and
/// [`Pool::submit_with`](crate::Pool::submit_with).
///
/// A task that is submitted by another task of a pool inherits the options that are not set here, because both belong
/// to the same request. [`independent`](Self::independent) turns that off.
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
    /// Options that are all inherited. Outside a pool's tasks: no deadline, [`Priority::Normal`] and no caller.
    pub const fn new() -> Self {
        Self { deadline: None, priority: None, caller: None, independent: false }
    }

    /// Sets the deadline. A task that is still queued then is rejected with
    /// [`DeadlineExceeded`](crate::Reason::DeadlineExceeded); a running task learns of it from
    /// [`checkpoint`](crate::checkpoint).
    pub const fn deadline(mut self, deadline: Deadline) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// Sets how important the task is among the tasks of its pool.
    pub const fn priority(mut self, priority: Priority) -> Self {
        self.priority = Some(priority);
        self
    }

    /// Sets the caller for fair queueing: callers of one priority have equal shares of the workers' time, however many
    /// tasks each of them has queued.
    pub const fn caller(mut self, caller: Caller) -> Self {
        self.caller = Some(caller);
        self
    }

    /// Inherits nothing: the task does not belong to the request of the task that submits it.
    pub const fn independent(mut self) -> Self {
        self.independent = true;
        self
    }

    /// The options of a request. The layer's choices take precedence over the request's terms. The normal priority in
    /// `terms` counts as not set.
    pub(crate) fn of_request(terms: Terms, priority: Option<Priority>, caller: Option<Caller>) -> Self {
        let asked = Some(terms.priority).filter(|&priority| priority != Priority::default());
        Self {
            deadline: terms.deadline,
            priority: priority.or(asked),
            caller: caller.or(terms.caller),
            independent: false,
        }
    }

    /// Takes the options that are not set from the task that submits this one.
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

    /// The options of a batch with a task of either: the latest deadline, the highest priority, and the caller of both.
    pub(crate) fn shared_with(self, other: Self) -> Self {
        let deadlines = self.deadline.zip(other.deadline);
        let level = |options: Self| options.priority.unwrap_or_default();
        Self {
            deadline: deadlines.map(|(one, other)| if one.moment() < other.moment() { other } else { one }),
            priority: Some(level(self).min(level(other))),
            caller: self.caller.filter(|&caller| other.caller == Some(caller)),
            independent: false,
        }
    }
}
