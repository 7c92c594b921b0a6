//! The task of an item. The one that a worker took leads a batch: it takes others out of the queue, runs the function
//! for all of them, and ends them.

use std::any::Any;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use super::item::{Item, ItemResult, Ride, Turn};
use super::run::{Ran, run};
use crate::admission::Timestamp;
use crate::current::{CurrentTask, Rider, Riders};
use crate::error::{BatchError, TaskError};
use crate::metrics::batches::BatchResult;
use crate::task::{BatchItem, TaskFuture};

/// The future of the task of one item.
pub(super) struct ItemTask<I, O, E> {
    item: Arc<Item<I, O, E>>,
    leads: Option<Leader<I, O, E>>,
}

/// The tasks that ride with a leader, and their items.
type Joined<I, O, E> = Vec<(Rider, Arc<Item<I, O, E>>)>;

/// A batch that runs.
struct Leader<I, O, E> {
    task: CurrentTask,
    started: Timestamp,
    running: Pin<Box<dyn Future<Output = Ran<O, E>> + Send>>,
    riders: Joined<I, O, E>,
    weight: u64,
    ended: bool,
}

impl<I, O, E> ItemTask<I, O, E> {
    pub(super) const fn new(item: Arc<Item<I, O, E>>) -> Self {
        Self { item, leads: None }
    }
}

impl<I, O, E> Future for ItemTask<I, O, E>
where
    I: Send + 'static,
    O: Send + 'static,
    E: Send + 'static,
{
    type Output = ItemResult<O, E>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if this.leads.is_none() {
            match this.item.turn() {
                Turn::Lead(first, ride) => this.leads = Leader::form(&this.item, first, &ride),
                Turn::End(result) => return Poll::Ready(result),
                Turn::Wait => {}
            }
        }
        // A task that rides is polled again when its result is there, or when its caller has left.
        let Some(leader) = &mut this.leads else { return Poll::Pending };
        let result = ready!(leader.poll(&this.item, cx));
        this.leads = None;
        Poll::Ready(result)
    }
}

impl<I, O, E> TaskFuture for ItemTask<I, O, E>
where
    I: Send + 'static,
    O: Send + 'static,
    E: Send + 'static,
{
    fn clear(&mut self) {
        self.item.task_ended();
        self.leads = None;
    }
}

impl<I, O, E> Leader<I, O, E>
where
    I: Send + 'static,
    O: Send + 'static,
    E: Send + 'static,
{
    /// Takes the tasks that join the batch, and begins it. `None` if the callers of all its items have left.
    fn form(item: &Arc<Item<I, O, E>>, first: I, ride: &Arc<Ride<O, E>>) -> Option<Self> {
        let task = CurrentTask::get()?;
        let alone = item.function.is_only_one(&item.group);
        let mut riders = if alone { Riders::default() } else { task.take_riders(item.function.limits) };
        let now = task.now();
        let (mut items, mut weight) = (vec![first], item.weight);
        let mut joined = Vec::new();
        riders.tasks.retain(|rider| {
            let Some(other) = rider.item().and_then(downcast::<I, O, E>) else { return false };
            other.join(ride);
            // If its caller has left, this ends it.
            rider.begin(now);
            let Some(given) = other.give() else { return false };
            items.push(given);
            weight = weight.saturating_add(other.weight);
            joined.push(other);
            true
        });
        task.starts_batch(&riders);
        if Ride::is_abandoned(ride) {
            return None;
        }
        let running = Box::pin(run(item.function.clone(), items));
        let riders = riders.tasks.into_iter().zip(joined).collect();
        Some(Self { started: task.now(), task, running, riders, weight, ended: false })
    }

    fn poll(&mut self, item: &Item<I, O, E>, cx: &mut Context<'_>) -> Poll<ItemResult<O, E>> {
        let Ran { results, result } = ready!(self.running.as_mut().poll(cx));
        self.ended = true;
        let now = self.task.now();
        let took = now.since(self.started);
        if result == BatchResult::Ok {
            item.group.batch_ended(now, self.weight, took);
        }
        self.task.batch_ended(result, results.len(), took);
        let mut results = results.into_iter();
        let own = results.next().expect("there is a result for each item");
        let ended = self.riders.drain(..).zip(results).map(|((rider, other), result)| {
            other.end(result);
            rider
        });
        self.task.end_riders(now, ended);
        Poll::Ready(own)
    }
}

/// A batch that ends early, because its callers have left or a shutdown cuts it off, ends its items.
impl<I, O, E> Drop for Leader<I, O, E> {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let (items, took) = (self.riders.len() + 1, self.task.now().since(self.started));
        self.task.batch_ended(BatchResult::Cancelled, items, took);
        for (rider, other) in self.riders.drain(..) {
            other.end(Err(BatchError::Task(TaskError::from(self.task.cut_off()))));
            rider.wake();
        }
    }
}

fn downcast<I, O, E>(item: &Arc<dyn BatchItem>) -> Option<Arc<Item<I, O, E>>>
where
    I: Send + 'static,
    O: Send + 'static,
    E: Send + 'static,
{
    let item: Arc<dyn Any + Send + Sync> = item.clone();
    item.downcast().ok()
}
