//! `BatchFuture`: the caller's future of one item.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use super::function::Function;
use super::item::{Item, ItemResult};
use super::leader::ItemTask;
use super::run::run;
use crate::admission::Outcome;
use crate::error::{BatchError, TaskError};
use crate::pool::{CancelOnDrop, Pool, Submission, TaskOptions};

/// The future of one item of a [`Batch`](super::Batch). Dropping it cancels the item.
#[must_use = "futures do nothing unless polled"]
pub struct BatchFuture<I, O, E> {
    state: State<I, O, E>,
}

enum State<I, O, E> {
    New(Arc<Function<I, O, E>>, TaskOptions, I),
    Submitted(Submitted<I, O, E>),
    /// The pools are disabled: the function runs here.
    Here(Pin<Box<dyn Future<Output = ItemResult<O, E>> + Send>>),
    Done,
}

/// An item in its pool. Dropping this cancels it.
struct Submitted<I, O, E> {
    item: Arc<Item<I, O, E>>,
    pending: Option<CancelOnDrop<ItemResult<O, E>>>,
}

// No part of it is pinned.
impl<I, O, E> Unpin for BatchFuture<I, O, E> {}

impl<I, O, E> BatchFuture<I, O, E> {
    pub(super) const fn new(function: Arc<Function<I, O, E>>, options: TaskOptions, item: I) -> Self {
        Self { state: State::New(function, options, item) }
    }
}

impl<I, O, E> Future for BatchFuture<I, O, E>
where
    I: Send + 'static,
    O: Send + 'static,
    E: Send + 'static,
{
    type Output = ItemResult<O, E>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if matches!(self.state, State::New(..))
            && let State::New(function, options, item) = std::mem::replace(&mut self.state, State::Done)
        {
            self.state = match function.pool.clone() {
                Some(pool) => State::Submitted(submit(&pool, function, options, item)?),
                None => State::Here(Box::pin(async move {
                    let mut ran = run(function, vec![item]).await;
                    ran.results.remove(0)
                })),
            };
        }
        let result = match &mut self.state {
            State::Submitted(Submitted { pending: Some(pending), .. }) => {
                ready!(Pin::new(pending).poll(cx)).unwrap_or_else(|error| Err(BatchError::Task(error)))
            }
            State::Here(running) => ready!(running.as_mut().poll(cx)),
            _ => panic!("`BatchFuture` was polled after it had ended"),
        };
        self.state = State::Done;
        Poll::Ready(result)
    }
}

fn submit<I, O, E>(
    pool: &Pool,
    function: Arc<Function<I, O, E>>,
    options: TaskOptions,
    item: I,
) -> Result<Submitted<I, O, E>, BatchError<E>>
where
    I: Send + 'static,
    O: Send + 'static,
    E: Send + 'static,
{
    function.warn_if_nested(pool);
    let item = Item::new(function, item);
    let outcome_of = |result: &ItemResult<O, E>| result.as_ref().map_or_else(outcome_of_error, |_| Outcome::Ok);
    let function = || item.function.name.clone();
    let task = Submission::new(ItemTask::new(item.clone()), options, function, outcome_of);
    let submission = Submission { item: Some(item.clone()), ..task };
    match pool.submit_future(submission) {
        Ok(pending) => Ok(Submitted { item, pending: Some(pending) }),
        Err(rejected) => Err(BatchError::Task(rejected.rejection.into())),
    }
}

impl<I, O, E> Drop for Submitted<I, O, E> {
    fn drop(&mut self) {
        self.item.caller_left(self.pending.take());
    }
}

impl<I, O, E> fmt::Debug for BatchFuture<I, O, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BatchFuture").finish_non_exhaustive()
    }
}

const fn outcome_of_error<E>(error: &BatchError<E>) -> Outcome {
    match error {
        BatchError::Task(TaskError::Panicked(_)) => Outcome::Panicked,
        BatchError::Task(_) => Outcome::Cancelled,
        BatchError::Item(_) | BatchError::Length { .. } | BatchError::Service(_) => Outcome::Error,
    }
}
