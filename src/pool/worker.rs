//! The thread of a worker: it takes jobs and polls them until there is nothing to do for a while.

use std::cell::RefCell;
use std::io;
use std::sync::Arc;

use super::dispatch::From;
use super::job::Work;
use super::shared::Shared;
use crate::shield::shielded;
use crate::threads;

thread_local! {
    static HERE: RefCell<Option<Here>> = const { RefCell::new(None) };
}

/// The worker that this thread is.
struct Here {
    pool: u64,
    seat: usize,
    /// Taken under the lock that ended the job before it.
    next: Option<Work>,
}

/// Starts a thread for `seat`.
pub(crate) fn start(shared: Arc<Shared>, seat: usize) -> io::Result<()> {
    let name = format!("offload-{}-{}", shared.name, seat + 1);
    threads::start(name, move || run(&shared, seat))
}

/// Whether this thread is a worker of the pool with this number.
pub(crate) fn is_of(pool: u64) -> bool {
    // A destructor of another thread-local value may ask when this one is gone.
    HERE.try_with(|here| here.borrow().as_ref().is_some_and(|here| here.pool == pool)).unwrap_or(false)
}

/// The seat of the worker that this thread is.
pub(super) fn seat() -> usize {
    HERE.with_borrow(|here| here.as_ref().expect("a job is polled to its end only by a worker").seat)
}

/// Keeps the next job of this worker, to be polled as soon as the one that has just ended has told its caller.
pub(super) fn keep(work: Work) {
    HERE.with_borrow_mut(|here| {
        here.as_mut().expect("a job is polled to its end only by a worker").next = Some(work);
    });
}

fn run(shared: &Arc<Shared>, seat: usize) {
    HERE.set(Some(Here { pool: shared.id, seat, next: None }));
    shared.renice();
    let mut from = From::Start;
    while let Some(work) = kept().or_else(|| shared.next(seat, from)) {
        from = From::Job;
        // A job's own panic ends in the job. What comes as far as here is a panic of the application's subscriber.
        shielded(|| work.run());
    }
    HERE.set(None);
}

fn kept() -> Option<Work> {
    HERE.with_borrow_mut(|here| here.as_mut().and_then(|here| here.next.take()))
}
