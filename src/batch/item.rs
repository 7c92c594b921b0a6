//! One item on its way through a pool, shared by its caller, its task and the leader of its batch.

use std::sync::{Arc, Mutex};

use super::function::Function;
use super::group::Group;
use crate::admission::{Prediction, Timestamp};
use crate::error::BatchError;
use crate::pool::CancelOnDrop;
use crate::shield::shielded;
use crate::sync::lock_std as lock;
use crate::task::BatchItem;

/// The result of an item.
pub(super) type ItemResult<O, E> = Result<O, BatchError<E>>;

/// One item, and how far it is.
pub(super) struct Item<I, O, E> {
    pub(super) function: Arc<Function<I, O, E>>,
    pub(super) group: Arc<Group>,
    pub(super) weight: u64,
    stage: Mutex<Stage<I, O, E>>,
}

enum Stage<I, O, E> {
    /// It waits in the queue.
    Queued(I),
    /// Its task leads a batch.
    Leads(Arc<Ride<O, E>>),
    /// Its task rides in the permit of another. The leader takes the item.
    Rides { item: Option<I>, _ride: Arc<Ride<O, E>> },
    /// Its result is there.
    Done(ItemResult<O, E>),
    /// Its caller has left, or the result was taken.
    Over,
}

/// What a task does that is polled.
pub(super) enum Turn<I, O, E> {
    Lead(I, Arc<Ride<O, E>>),
    End(ItemResult<O, E>),
    Wait,
}

/// Kept by each item of a batch until its caller leaves. When all have left, the batch is cancelled.
pub(super) struct Ride<O, E> {
    /// The leader's task, once the leader's caller has left. Dropping this cancels the task, and the batch with it.
    leader: Mutex<Option<CancelOnDrop<ItemResult<O, E>>>>,
}

impl<I, O, E> Item<I, O, E> {
    /// Calls functions of the application, which may panic.
    pub(super) fn new(function: Arc<Function<I, O, E>>, item: I) -> Arc<Self> {
        let (group, weight) = (function.group_of(&item), function.weight_of(&item));
        Arc::new(Self { function, group, weight, stage: Mutex::new(Stage::Queued(item)) })
    }

    /// The turn of the item's task, when it is polled and does not lead a batch yet.
    pub(super) fn turn(&self) -> Turn<I, O, E> {
        let mut stage = lock(&self.stage);
        match std::mem::replace(&mut *stage, Stage::Over) {
            Stage::Queued(item) => {
                let ride = Ride::new();
                *stage = Stage::Leads(ride.clone());
                Turn::Lead(item, ride)
            }
            Stage::Done(result) => Turn::End(result),
            other => {
                *stage = other;
                Turn::Wait
            }
        }
    }

    /// Joins a batch, unless the caller has left.
    pub(super) fn join(&self, ride: &Arc<Ride<O, E>>) {
        let mut stage = lock(&self.stage);
        *stage = match std::mem::replace(&mut *stage, Stage::Over) {
            Stage::Queued(item) => Stage::Rides { item: Some(item), _ride: ride.clone() },
            other => other,
        };
    }

    /// Gives the item of a task that rides to the leader, unless the task has ended.
    pub(super) fn give(&self) -> Option<I> {
        match &mut *lock(&self.stage) {
            Stage::Rides { item, .. } => item.take(),
            _ => None,
        }
    }

    /// Stores the result of a task that rides. If its caller has left, drops it.
    pub(super) fn end(&self, result: ItemResult<O, E>) {
        let mut stage = lock(&self.stage);
        if !matches!(*stage, Stage::Rides { .. }) {
            drop(stage);
            shielded(|| drop(result));
            return;
        }
        let before = std::mem::replace(&mut *stage, Stage::Done(result));
        drop(stage);
        shielded(|| drop(before));
    }

    /// The caller has left. Its task, `pending`, is cancelled, unless it leads a batch that others wait for.
    pub(super) fn caller_left(&self, pending: Option<CancelOnDrop<ItemResult<O, E>>>) {
        let stage = std::mem::replace(&mut *lock(&self.stage), Stage::Over);
        if let Stage::Leads(ride) = &stage {
            *lock(&ride.leader) = pending;
        }
        // What is dropped here cancels the batch if no other item has the ride.
    }

    /// The task ended without a result. If it rode in a batch, it has left that.
    pub(super) fn task_ended(&self) {
        let mut stage = lock(&self.stage);
        if let Stage::Rides { .. } | Stage::Queued(_) = &*stage {
            let before = std::mem::replace(&mut *stage, Stage::Over);
            drop(stage);
            drop(before);
        }
    }
}

impl<O, E> Ride<O, E> {
    fn new() -> Arc<Self> {
        Arc::new(Self { leader: Mutex::new(None) })
    }

    /// Whether no item keeps it: all callers have left.
    pub(super) fn is_abandoned(this: &Arc<Self>) -> bool {
        Arc::strong_count(this) == 1
    }
}

impl<I, O, E> BatchItem for Item<I, O, E>
where
    I: Send + 'static,
    O: Send + 'static,
    E: Send + 'static,
{
    fn group(&self) -> u64 {
        self.group.number()
    }

    fn weight(&self) -> u64 {
        self.weight
    }

    fn prediction(&self, now: Timestamp) -> Option<Prediction> {
        self.group.prediction(now)
    }
}
