//! Wakes the readers of bodies from a task of their runtime, a few at a time.
//!
//! A task that is woken on a thread outside of its Tokio runtime goes into a queue that all threads of the runtime share.
//! A thread with tasks in its own queue takes only one of the shared queue after every few of its own. Beside hundreds of
//! streams, the shared queue would be full of their readers, and each response of a pool would wait behind them. A task
//! of the runtime wakes readers into the queue of the thread that polls it.
//!
//! While all threads of the runtime are blocked, this task does not run. A reader that some other thread polls meanwhile,
//! in a `block_on`, is woken when one of them is free again.

use std::future::poll_fn;
use std::sync::{Mutex, PoisonError};
use std::task::{Poll, Waker};

use tokio::runtime::{Handle, Id, RuntimeFlavor};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, WeakUnboundedSender, unbounded_channel};

use crate::shield::shielded;

/// Wakes the readers of one runtime.
pub(super) struct ReaderWaker(Option<UnboundedSender<Waker>>);

/// The readers that are to be woken. Dropping this wakes all of them: the runtime of a reader need not be the one that
/// shuts down.
struct Readers(UnboundedReceiver<Waker>);

/// The tasks that wake readers, each with its runtime.
static TASKS: Mutex<Vec<(Id, WeakUnboundedSender<Waker>)>> = Mutex::new(Vec::new());

/// The readers that are woken before the runtime polls other tasks.
const AT_ONCE: usize = 16;

impl ReaderWaker {
    /// For readers of the current runtime. Without one, and for a runtime of a single thread, which may block while some
    /// other thread reads, readers are woken directly.
    pub(super) fn current() -> Self {
        let runtime = Handle::try_current().ok();
        let runtime = runtime.filter(|runtime| runtime.runtime_flavor() == RuntimeFlavor::MultiThread);
        Self(runtime.as_ref().map(task))
    }

    pub(super) fn wake(&self, reader: Waker) {
        let rejected = match &self.0 {
            Some(task) => task.send(reader).err().map(|error| error.0),
            None => Some(reader),
        };
        if let Some(reader) = rejected {
            wake(reader);
        }
    }
}

/// The task of a runtime. It ends when no body refers to it.
fn task(runtime: &Handle) -> UnboundedSender<Waker> {
    let mut tasks = TASKS.lock().unwrap_or_else(PoisonError::into_inner);
    let same = tasks.iter().find(|(id, _)| *id == runtime.id());
    if let Some(task) = same.and_then(|(_, task)| task.upgrade()) {
        return task;
    }
    let (sender, receiver) = unbounded_channel();
    tasks.retain(|(_, task)| task.strong_count() > 0);
    tasks.push((runtime.id(), sender.downgrade()));
    drop(tasks);
    drop(runtime.spawn(Readers(receiver).wake()));
    sender
}

impl Readers {
    async fn wake(mut self) {
        let mut some = Vec::new();
        while self.0.recv_many(&mut some, AT_ONCE).await > 0 {
            some.drain(..).for_each(wake);
            let_others_run().await;
        }
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        self.0.close();
        while let Ok(reader) = self.0.try_recv() {
            wake(reader);
        }
    }
}

/// A waker that panics keeps no other reader waiting.
fn wake(reader: Waker) {
    shielded(|| reader.wake());
}

/// Returns after the tasks that the thread has in its queue. `tokio::task::yield_now` would wait for its timers and
/// sockets, too, which a thread with many tasks looks at rarely.
async fn let_others_run() {
    let mut yielded = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;
    use std::task::Wake;

    use futures_util::task::AtomicWaker;
    use tokio::runtime::Builder;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_response_does_not_wait_for_all_readers_that_were_woken_before_it() {
        const READERS: usize = 5_000;
        let runtime = Builder::new_multi_thread().worker_threads(1).build().unwrap();
        let waker = {
            let _runtime = runtime.enter();
            ReaderWaker::current()
        };
        let polled = Arc::new(AtomicUsize::new(0));
        let (waits, waiting) = mpsc::channel();
        // Each of these waits to be woken once.
        let woken_task = |mut then: Box<dyn FnMut() + Send>| {
            let (waits, slot) = (waits.clone(), Arc::new(AtomicWaker::new()));
            let of_task = slot.clone();
            let mut polled_before = false;
            runtime.spawn(poll_fn(move |cx| {
                if std::mem::replace(&mut polled_before, true) {
                    then();
                    return Poll::Ready(());
                }
                of_task.register(cx.waker());
                waits.send(()).unwrap();
                Poll::Pending
            }));
            waiting.recv().unwrap();
            slot.take().unwrap()
        };
        let readers: Vec<_> = (0..READERS)
            .map(|_| {
                let polled = polled.clone();
                woken_task(Box::new(move || {
                    polled.fetch_add(1, Ordering::Relaxed);
                }))
            })
            .collect();
        let (respond, response) = mpsc::channel();
        let caller = woken_task(Box::new({
            let polled = polled.clone();
            move || respond.send(polled.load(Ordering::Relaxed)).unwrap()
        }));

        // The only thread of the runtime is at work while the readers and then the caller are woken.
        let (free, at_work) = mpsc::channel::<()>();
        let (begin, began) = mpsc::channel();
        runtime.spawn(async move {
            begin.send(()).unwrap();
            at_work.recv().unwrap_err();
        });
        began.recv().unwrap();
        readers.into_iter().for_each(|reader| waker.wake(reader));
        caller.wake();
        drop(free);
        let polled_before = response.recv().unwrap();
        assert!(polled_before < READERS / 10, "{polled_before} readers were polled before the response");
    }

    #[test]
    fn other_tasks_are_polled_after_sixteen_readers() {
        let (sender, receiver) = unbounded_channel();
        let count = Arc::new(Count::default());
        let waker = ReaderWaker(Some(sender));
        (0..20).for_each(|_| waker.wake(count.clone().into()));
        let mut task = tokio_test::task::spawn(Readers(receiver).wake());
        assert!(task.poll().is_pending());
        assert_eq!(count.0.load(Ordering::Relaxed), 16);
        assert!(task.is_woken());
        assert!(task.poll().is_pending());
        assert_eq!(count.0.load(Ordering::Relaxed), 20);
    }

    #[test]
    fn readers_are_woken_when_the_task_is_dropped_and_after_that() {
        let (sender, receiver) = unbounded_channel();
        let count = Arc::new(Count::default());
        let waker = ReaderWaker(Some(sender));
        waker.wake(count.clone().into());
        let task = Readers(receiver).wake();
        assert_eq!(count.0.load(Ordering::Relaxed), 0);
        drop(task);
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        waker.wake(count.clone().into());
        assert_eq!(count.0.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn a_waker_that_panics_keeps_no_other_reader_waiting() {
        struct Panics;
        impl Wake for Panics {
            fn wake(self: Arc<Self>) {
                panic!("in a waker");
            }
        }
        let (sender, receiver) = unbounded_channel();
        let count = Arc::new(Count::default());
        let waker = ReaderWaker(Some(sender));
        waker.wake(Arc::new(Panics).into());
        waker.wake(count.clone().into());
        let mut task = tokio_test::task::spawn(Readers(receiver).wake());
        assert!(task.poll().is_pending());
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn a_runtime_has_one_task_as_long_as_bodies_refer_to_it() {
        let runtime = Builder::new_multi_thread().worker_threads(1).build().unwrap();
        let _runtime = runtime.enter();
        let wakers = (ReaderWaker::current(), ReaderWaker::current());
        let (Some(first), Some(second)) = (&wakers.0.0, &wakers.1.0) else { panic!("there is a runtime") };
        assert!(first.same_channel(second));
        let task = first.downgrade();
        drop(wakers);
        assert!(task.upgrade().is_none());
        let ReaderWaker(Some(next)) = ReaderWaker::current() else { panic!("there is a runtime") };
        assert!(!next.is_closed());
        let tasks = TASKS.lock().unwrap().iter().filter(|(id, _)| *id == runtime.handle().id()).count();
        assert_eq!(tasks, 1);
    }
}
