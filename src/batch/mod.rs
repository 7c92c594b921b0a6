//! Batches: single items go in, and a function of a whole list runs in a pool.
//!
//! A model, a database or a remote service often handles a list in little more time than a single item. A [`Batch`] is a
//! [`Service`] of single items. Each item is a task in the queue of its pool, with its own deadline, priority and caller.
//! **A worker that becomes free takes what waits**, up to the limits, and runs the function once for all of them. There
//! is no timer: a lone item in an idle pool runs at once, and batches grow by themselves as the load does.
//!
//! ```
//! use std::convert::Infallible;
//! use tower::ServiceExt;
//! use tower_offload::{Embedding, Pools, batch::Batch};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let pools = Pools::default();
//! let lengths = Batch::builder(&pools, Embedding)
//!     .max_items(32)
//!     .run(|texts: Vec<String>| texts.iter().map(|text| Ok::<_, Infallible>(text.len())).collect())?;
//!
//! // One item; a handler clones the batch for each request.
//! assert_eq!(lengths.clone().oneshot("four".to_owned()).await?, 4);
//!
//! // A client's list shares batches with the items of others.
//! let results = lengths.clone().call_all(["a", "bb", "ccc"].map(str::to_owned)).await;
//! let results: Result<Vec<_>, _> = results.into_iter().collect();
//! assert_eq!(results?, [1, 2, 3]);
//! # Ok(())
//! # }
//! ```
//!
//! The function blocks a worker of the pool while it runs. For an async function, or a whole stack of middleware, give
//! the builder a [`service`](BatchBuilder::service) of lists, or use it as a [`layer`](BatchBuilder::layer).
//!
//! # Which tasks share a batch
//!
//! The worker takes the task that is next, and then further ones in the order in which they would start: high
//! [priorities](crate::Priority) first, and lower ones fill what is left. It stops
//!
//! - at `max_items` or `max_weight`; an item that weighs more than `max_weight` is a batch by itself;
//! - where the batch would miss the nearest deadline in it. How long a batch takes is predicted from the batches before,
//!   as *a·n + b*. An item that would miss its deadline even alone is rejected with
//!   [`DeadlineExceeded`](crate::Reason::DeadlineExceeded), and has not started;
//! - when nothing waits that belongs to the same [group](BatchBuilder::group_by).
//!
//! # Limits and numbers
//!
//! A batch has one permit, whatever its size, so the pool's concurrency limit bounds how many batches run at once. Give
//! the pool as many as the model or the device can run in parallel, often 1 or 2: with more, tasks start alone that
//! could have shared a batch. Its queue should hold several batches. Everything else counts tasks: the queue, the
//! results, and the tasks in flight.
//!
//! A handler that calls a batch should not be in a [`PoolLayer`](crate::PoolLayer) of the same pool. It has a permit of
//! that pool, so its item starts at once inside that permit, together with the items that wait at this moment, and does
//! not wait for those that come after. Such a call is logged once.
//!
//! # Errors, panics and cancellation
//!
//! The function gives a `Result` for each item. If it panics, or gives fewer or more results than it was given items,
//! all items of that batch fail, and no other. [`isolate`](BatchBuilder::isolate) then runs these items one by one.
//!
//! An item whose future is dropped leaves the queue. If its batch runs already, its result is dropped; if the futures of
//! *all* items of a batch were dropped, the batch is cancelled: an async function is dropped, and a blocking one is told
//! by [`checkpoint`](crate::checkpoint()). A panic of the function for groups or weights reaches the caller, and harms no
//! one else.

mod builder;
mod call;
mod function;
mod group;
mod item;
mod leader;
mod run;

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::stream::{self, StreamExt};
use tower_service::Service;

use self::function::Function;
use crate::pool::TaskOptions;
use crate::pools::Pools;
use crate::workload::PoolName;

pub use self::builder::{BatchBuilder, BatchLayer, BuildError};
pub use self::call::BatchFuture;
pub use crate::config::BatchSettings;
pub use crate::error::BatchError;

/// Runs single items in batches; see the [module](self). Cheap to clone; every clone is the same batch.
pub struct Batch<I, O, E> {
    function: Arc<Function<I, O, E>>,
}

impl<I: Send + 'static> Batch<I, (), ()> {
    /// Begins a batch in this pool.
    #[track_caller]
    pub fn builder(pools: &Pools, pool: impl PoolName) -> BatchBuilder<I> {
        BatchBuilder::new(pools, pool)
    }
}

impl<I, O, E> Batch<I, O, E>
where
    I: Send + 'static,
    O: Send + 'static,
    E: Send + 'static,
{
    /// Runs one item, with its deadline, priority or caller set. [`call`](Service::call) inherits them from the task in
    /// which it is called.
    ///
    /// The item is submitted when the future is first polled. Dropping the future cancels it.
    pub fn call_with(&self, options: TaskOptions, item: I) -> BatchFuture<I, O, E> {
        BatchFuture::new(self.function.clone(), options, item)
    }

    /// Runs the items of a list, and returns their results in the same order. They share batches with each other and
    /// with the items of other callers.
    ///
    /// Clone the batch for it, as for `oneshot`. The method takes the batch itself because `tower::ServiceExt` has one of
    /// this name that does, and would be chosen otherwise.
    ///
    /// Of a list that is longer than half of the pool's queue, the rest waits outside of it, so that a long list neither
    /// overfills the queue nor keeps others out. If others fill it, items are rejected as single ones are.
    pub async fn call_all(self, items: impl IntoIterator<Item = I>) -> Vec<Result<O, BatchError<E>>> {
        self.call_all_with(TaskOptions::new(), items).await
    }

    /// The same with their deadline, priority or caller set.
    pub async fn call_all_with(
        self,
        options: TaskOptions,
        items: impl IntoIterator<Item = I>,
    ) -> Vec<Result<O, BatchError<E>>> {
        let calls = items.into_iter().map(|item| self.call_with(options, item));
        stream::iter(calls).buffered(self.function.window()).collect().await
    }
}

/// Always ready: an item that finds no room is rejected by its future.
impl<I, O, E> Service<I> for Batch<I, O, E>
where
    I: Send + 'static,
    O: Send + 'static,
    E: Send + 'static,
{
    type Response = O;
    type Error = BatchError<E>;
    type Future = BatchFuture<I, O, E>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, item: I) -> Self::Future {
        self.call_with(TaskOptions::new(), item)
    }
}

impl<I, O, E> Clone for Batch<I, O, E> {
    fn clone(&self) -> Self {
        Self { function: self.function.clone() }
    }
}

impl<I, O, E> fmt::Debug for Batch<I, O, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Batch").field(&self.function).finish()
    }
}
