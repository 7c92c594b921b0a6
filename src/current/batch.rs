//! A batch, as the task that leads it sees it: it takes other tasks out of the queue, and they ride in its permit.

use std::sync::Arc;
use std::time::Duration;

use super::task::CurrentTask;
use crate::admission::{BatchLimits, Growth, Join, SharedPermit, Timestamp};
use crate::dispatch::MAX_TAKEN;
use crate::error::{Reason, Rejection};
use crate::metrics::batches::BatchResult;
use crate::options::TaskOptions;
use crate::pool::{Shared, TaskRef, begin_in_place, end_in_place, give_answers, perform, record_times};
use crate::shield::shielded;
use crate::task::{Batch, BatchItem, Wakeup};

/// A task that was taken out of the queue and joins the batch of another one.
pub(crate) struct Rider(TaskRef);

/// The tasks that a leader took, and what is known of the batch.
#[derive(Default)]
pub(crate) struct Riders {
    pub(crate) tasks: Vec<Rider>,
    cut: bool,
}

impl CurrentTask {
    /// The time on the pool's clock.
    pub(crate) fn now(&self) -> Timestamp {
        self.task().head().pool.now()
    }

    /// Takes the queued tasks that join a batch of this task. Empty unless this task is an item of a batch.
    pub(crate) fn take_riders(&self, limits: BatchLimits) -> Riders {
        let head = self.task().head();
        let mut riders = Riders::default();
        let Some(item) = &head.item else { return riders };
        let now = self.now();
        let properties = item.properties(head.deadline());
        let mut growth = Growth::new(now, limits, item.item.prediction(now), properties);
        let mut taken = Vec::new();
        while !growth.is_complete() {
            let before = taken.len();
            take_more(&head.pool, &mut growth, &mut taken);
            // Fewer than may be taken at a time: no more of them wait.
            if taken.len() < before + MAX_TAKEN {
                break;
            }
        }
        riders.cut = growth.is_cut();
        riders.tasks.extend(taken.into_iter().map(Rider));
        riders
    }

    /// Notes that the batch starts: this task and its riders share a permit, and their code should stop at the latest
    /// of their deadlines.
    pub(crate) fn starts_batch(&self, riders: &Riders) {
        let heads =
            || std::iter::once(self.task()).chain(riders.tasks.iter().map(|rider| &rider.0)).map(|task| task.head());
        let options = heads().map(|head| head.options).reduce(TaskOptions::shared_with).unwrap_or_default();
        let tasks = u32::try_from(heads().count()).unwrap_or(u32::MAX);
        let batch = Batch { permit: SharedPermit { tasks, cut: riders.cut }, options };
        heads().filter_map(|head| head.item.as_ref()).for_each(|item| _ = item.batch.set(batch));
        give_answers();
    }

    /// Records the end of a batch.
    pub(crate) fn batch_ended(&self, result: BatchResult, items: usize, took: Duration) {
        let pool = &self.task().head().pool;
        pool.batches.ended(result);
        shielded(|| record_times(|times| times.record_batch(pool.now(), items, took)));
    }

    /// Polls riders once more, in place: their results are there.
    pub(crate) fn end_riders(&self, now: Timestamp, riders: impl Iterator<Item = Rider>) {
        let woken = riders.map(|rider| rider.0).filter(|task| task.head().state.wake() != Wakeup::Nothing);
        end_in_place(&self.task().head().pool, now, woken);
    }

    /// The rejection for a task of a batch that does not end.
    pub(crate) fn cut_off(&self) -> Rejection {
        Rejection::new(self.pool().clone(), Reason::CutOff, None)
    }
}

impl Rider {
    pub(crate) fn item(&self) -> Option<&Arc<dyn BatchItem>> {
        self.0.head().item.as_ref().map(|item| &item.item)
    }

    /// Begins it, unless its caller has left or its deadline has passed.
    pub(crate) fn begin(&self, now: Timestamp) {
        begin_in_place(&self.0.head().pool, now, self.0.clone());
    }

    /// Lets a worker poll it.
    pub(crate) fn wake(self) {
        self.0.waker().wake();
    }
}

/// Takes queued tasks of the pool that join a batch, and adds them to it.
fn take_more(pool: &Arc<Shared>, growth: &mut Growth, batch: &mut Vec<TaskRef>) {
    let join = |task: &TaskRef| {
        let head = task.head();
        head.item.as_ref().map_or(Join::Skip, |item| growth.join(item.properties(head.deadline())))
    };
    let effects = pool.dispatch.take_more(pool.now(), join, batch);
    perform(pool, effects);
}
