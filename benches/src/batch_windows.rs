//! Batches by a window: the crates `tower-batch` and `tower-batch-control` (zebra's) over a function of lists.
//!
//! Both collect items until there are enough of them or a time has passed since the first one, and then tell their
//! service to flush. The service runs the function in `spawn_blocking`.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::oneshot;
use tower::{BoxError, Service};
use tower_batch_control::RequestWeight;

use crate::batch_functions::{Function, Item, Output};

/// An item, as `tower-batch-control` wants it.
pub struct Weighed(Item);

/// The items of the next flush, and who waits for their results.
pub struct Flushed {
    function: Function,
    items: Vec<Item>,
    waiting: Vec<oneshot::Sender<Output>>,
}

/// `Item` waits for its result, and `Flush` for the whole list, to which the result is nothing.
type Answer = Pin<Box<dyn Future<Output = Result<Output, BoxError>> + Send>>;

pub type TowerBatch = tower_batch::Batch<Flushed, Item>;
pub type BatchControl = tower_batch_control::Batch<Flushed, Weighed>;

/// `tower-batch`. Must be called in a runtime.
pub fn tower_batch(function: Function, max_items: usize, window: Duration) -> TowerBatch {
    tower_batch::Batch::new(Flushed::new(function), max_items, window)
}

/// `tower-batch-control`, one batch at a time. Must be called in a runtime.
pub fn batch_control(function: Function, max_items: usize, window: Duration) -> BatchControl {
    tower_batch_control::Batch::new(Flushed::new(function), max_items, 1, window)
}

impl Flushed {
    fn new(function: Function) -> Self {
        Self { function, items: Vec::new(), waiting: Vec::new() }
    }

    fn add(&mut self, item: Item) -> Answer {
        let (sender, receiver) = oneshot::channel();
        self.items.push(item);
        self.waiting.push(sender);
        Box::pin(async { Ok(receiver.await?) })
    }

    fn flush(&mut self) -> Answer {
        let (items, waiting) = (std::mem::take(&mut self.items), std::mem::take(&mut self.waiting));
        let function = self.function.clone();
        Box::pin(async move {
            let outputs = tokio::task::spawn_blocking(move || function(items)).await?;
            for (sender, output) in waiting.into_iter().zip(outputs) {
                let _ = sender.send(output);
            }
            Ok(Output::new())
        })
    }
}

impl From<Item> for Weighed {
    fn from(item: Item) -> Self {
        Self(item)
    }
}

impl RequestWeight for Weighed {}

impl Service<tower_batch::BatchControl<Item>> for Flushed {
    type Response = Output;
    type Error = BoxError;
    type Future = Answer;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, control: tower_batch::BatchControl<Item>) -> Answer {
        match control {
            tower_batch::BatchControl::Item(item) => self.add(item),
            tower_batch::BatchControl::Flush => self.flush(),
        }
    }
}

impl Service<tower_batch_control::BatchControl<Weighed>> for Flushed {
    type Response = Output;
    type Error = BoxError;
    type Future = Answer;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, control: tower_batch_control::BatchControl<Weighed>) -> Answer {
        match control {
            tower_batch_control::BatchControl::Item(Weighed(item)) => self.add(item),
            tower_batch_control::BatchControl::Flush => self.flush(),
        }
    }
}
