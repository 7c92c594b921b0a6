//! The thread of a worker: it takes jobs and polls them until there is nothing to do for a while.

use std::cell::RefCell;
use std::io;
use std::sync::Arc;
use std::task::Waker;

use super::completions::{self, Completions, Outlook};
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
    /// What is to be expected of the jobs after the one that has just ended, until its caller is told.
    outlook: Option<Outlook>,
    completions: Arc<Completions>,
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
pub(super) fn keep(work: Work, outlook: Outlook) {
    HERE.with_borrow_mut(|here| {
        let here = here.as_mut().expect("a job is polled to its end only by a worker");
        (here.next, here.outlook) = (Some(work), Some(outlook));
    });
}

/// Wakes the caller of a job; with others later, if this is a worker that has just ended a job and goes on.
pub(super) fn tell(caller: Waker) {
    let here = HERE.try_with(|here| {
        let mut here = here.try_borrow_mut().ok()?;
        here.as_mut().map(|here| (here.completions.clone(), here.outlook.take()))
    });
    match here.ok().flatten() {
        Some((completions, outlook)) => completions.tell(caller, outlook),
        None => completions::wake(caller),
    }
}

/// Wakes whoever this worker holds back: it does not go on at once.
pub(super) fn tell_all() {
    let here = HERE.with_borrow(|here| here.as_ref().map(|here| here.completions.clone()));
    if let Some(completions) = here {
        completions.tell_all();
    }
}

fn run(shared: &Arc<Shared>, seat: usize) {
    let completions = Arc::new(Completions::default());
    HERE.set(Some(Here { pool: shared.id, seat, next: None, outlook: None, completions: completions.clone() }));
    shared.renice();
    let mut from = From::Start;
    let next = |from| {
        let Some((work, untold)) = kept() else {
            completions.tell_all();
            return shared.next(seat, from);
        };
        if let Some(outlook) = untold {
            completions.pass(outlook);
        }
        Some(work)
    };
    while let Some(work) = next(from) {
        from = From::Job;
        // A job's own panic ends in the job. What comes as far as here is a panic of the application's subscriber.
        shielded(|| work.run());
    }
    HERE.set(None);
}

/// The next job that this worker has already; and what was to be expected of it, if nobody was told of the one before.
fn kept() -> Option<(Work, Option<Outlook>)> {
    HERE.with_borrow_mut(|here| {
        let here = here.as_mut()?;
        let outlook = here.outlook.take();
        here.next.take().map(|work| (work, outlook))
    })
}

#[cfg(all(test, not(any(tower_offload_loom, tower_offload_shuttle))))]
mod tests {
    use std::sync::{Arc, Barrier};

    use crate::{PoolConfig, Pools};

    #[test]
    fn each_worker_knows_its_own_seat() {
        let pools = Pools::builder().pool("two", PoolConfig::new(2)).build().expect("the settings are right");
        let both = Arc::new(Barrier::new(2));
        let seats = [(); 2].map(|()| {
            let both = both.clone();
            let job = move || {
                both.wait();
                super::seat()
            };
            pools.submit_to_pool("two", job).expect("there is room")
        });
        let mut seats = seats.map(|seat| seat.wait().expect("it does not panic"));
        seats.sort_unstable();
        assert_eq!(seats, [0, 1]);
    }
}
