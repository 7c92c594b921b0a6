//! Models of the wake-up protocol and of a task's state. Loom runs them through every interleaving of their threads, up
//! to a bound on preemptions.
//!
//! `RUSTFLAGS="--cfg tower_offload_loom" cargo test --lib --release --target-dir target/loom models`
//!
//! # What they find
//!
//! Each line of the protocol was broken once. The table names the model that then failed. Models in `schedules` are for
//! shuttle.
//!
//! | broken | fails |
//! |---|---|
//! | the lock is released between the look and the stack (rule 1) | `a_task_submitted_while_the_worker_parks_runs` |
//! | a woken worker is not unparked, or not counted as waking; `ready` wakes nobody (rule 2) | `a_task_woken_while_the_worker_parks_is_polled_again` |
//! | a worker that arrives stays counted as waking (rule 3) | `a_task_submitted_while_the_worker_parks_runs` |
//! | a worker that arrives wakes nobody (rule 3) | `a_worker_that_arrives_wakes_the_next_one` |
//! | the permit of a task that ended is not released (rule 4) | `a_queued_task_starts_when_the_permit_is_released` |
//! | `rechecked` is not called (rule 4) | `a_task_submitted_by_the_caller_of_the_last_one_…` |
//! | a worker that looks once more counts as two (rule 4) | `a_worker_that_looks_once_more_stands_for_one_task_alone` |
//! | `AwakeLimit::observe` does not raise the limit; `Dispatch::observe` wakes nobody (rule 5) | `schedules::a_limit_that_is_too_low_for_tasks_that_block_rises_and_wakes_workers` |
//! | the sampler is not started (rule 5) | `a_task_that_finds_no_worker_below_a_low_limit_…` |
//! | a worker whose keep-alive ended stays on the stack, or stays present | `a_worker_whose_keep_alive_ends_leaves_no_task_behind` |
//! | tasks to drop wake nobody | `a_late_task_is_taken_or_expired_and_a_worker_drops_it` |
//! | without workers the queue is not rejected | `without_any_worker_every_task_is_answered` |
//! | `drain` does not reach admission; a watcher is forgotten | `a_drain_waits_for_every_task_that_was_admitted` |
//! | a watcher's exception is ignored | `a_drain_inside_of_a_task_waits_for_all_tasks_but_that_one` |
//! | workers of a closed pool stay | `a_pool_that_closes_finishes_what_it_has_and_its_workers_end` |
//! | a task that begins to wait for room does not look; a worker calls it again and again | `a_task_that_waits_for_room_is_admitted_when_there_is_some` |
//! | a task that runs in place stays in the queue; a stale entry leaves its worker active | `a_task_to_run_in_place_is_polled_by_one_of_two_workers` |
//! | a task that is awaited is left to a worker that does not exist | `both_workers_may_block_for_inner_tasks_that_have_a_permit` |
//! | a task that is awaited is not put among the ready tasks | `a_task_that_is_awaited_below_a_low_limit_gets_a_worker_of_its_own` |
//! | a task that was rejected is polled in place | `a_task_to_run_in_place_is_polled_or_rejected_and_never_both` |
//! | the worker that waits is not woken with its task; or not by a wake-up during the poll | `the_only_worker_may_wait_for_a_task_that_is_woken`, `…_that_yields` |
//! | a task that was woken during its poll is dropped | `a_task_that_yields_is_polled_again` |
//! | `begin_poll` in any phase; `wake` notes nothing while the task is polled, or only reads while it is scheduled; `end_poll` ignores the wake-up; relaxed orderings | `a_wake_up_is_never_lost_and_two_threads_never_poll_at_once` |
//! | a guard of a permit is released without a look at the answer; the look only reads | `a_task_ends_with_the_last_guard_of_its_permit` |
//! | `deadline_passed` reads, and then writes | `a_task_that_was_said_not_to_have_started_never_does` |

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::Poll;

use loom::sync::Notify;
use loom::sync::atomic::AtomicBool;
use loom::thread::{self, JoinHandle};

use super::model::{
    Body, LATE, NOW, Plan, Pool, Slot, TaskRef, awaits, blocks_on, ends, meets, notifies, waits_for, yields,
};
use crate::error::Reason;
use crate::task::Continuation;
use crate::task::{TaskState, Wakeup};

fn explore(preemptions: usize, model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(model);
}

/// One worker, one permit.
fn one(capacity: usize) -> Arc<Pool> {
    Pool::new(&Plan { workers: 1, limit: 1, capacity, cores: 1 })
}

/// Two workers, two permits.
fn two(capacity: usize) -> Arc<Pool> {
    Pool::new(&Plan { workers: 2, limit: 2, capacity, cores: 1 })
}

/// A thread that does something to the pool while the model does something else.
fn meanwhile<T: 'static>(pool: &Arc<Pool>, call: impl FnOnce(&Arc<Pool>) -> T + 'static) -> JoinHandle<T> {
    let pool = pool.clone();
    thread::spawn(move || call(&pool))
}

fn join<T>(thread: JoinHandle<T>) -> T {
    thread.join().expect("no thread panics")
}

/// Two bodies, each of which blocks its thread until the other has begun.
fn meeting() -> (Body, Body) {
    let (one, two) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    (meets(one.clone(), two.clone()), meets(two, one))
}

// === rules 1 and 2: parking, and making a task ready ===

#[test]
fn a_task_submitted_while_the_worker_parks_runs() {
    explore(4, || {
        let pool = one(1);
        pool.submit(ends()).expect("a permit is free");
        pool.wait_until_idle(0);
        pool.submit(ends()).expect("the permit was released");
        pool.wait_until_idle(0);
        pool.close(2, 0);
    });
}

#[test]
fn two_submitters_and_two_workers_lose_no_task() {
    explore(2, || {
        let pool = two(1);
        let other = meanwhile(&pool, |pool| _ = pool.submit(ends()).expect("there is room for two"));
        pool.submit(ends()).expect("there is room for two");
        join(other);
        pool.wait_until_idle(0);
        pool.close(2, 0);
    });
}

#[test]
fn a_task_woken_while_the_worker_parks_is_polled_again() {
    explore(4, || {
        let pool = one(0);
        let slot = Arc::<Slot>::default();
        pool.submit(awaits(slot.clone(), ends())).expect("a permit is free");
        pool.wake(&slot.wait());
        pool.wait_until_idle(0);
        pool.close(1, 0);
    });
}

#[test]
fn a_task_that_yields_is_polled_again() {
    explore(4, || {
        let pool = one(0);
        pool.submit(yields()).expect("a permit is free");
        pool.wait_until_idle(0);
        pool.close(1, 0);
    });
}

/// The keep-alive of a worker ends while a task is submitted: the worker takes the task, or ends and another is
/// started.
#[test]
fn a_worker_whose_keep_alive_ends_leaves_no_task_behind() {
    explore(3, || {
        let pool = one(0);
        pool.submit(ends()).expect("a permit is free");
        pool.wait_until_idle(0);
        let clock = meanwhile(&pool, |pool| pool.time_passes());
        pool.submit(ends()).expect("the permit was released");
        join(clock);
        pool.wait_until_idle(0);
        pool.close(2, 0);
    });
}

// === rule 3: how many wake ===

/// Only one worker wakes at a time, and the task that it takes blocks until the other one has begun.
#[test]
fn a_worker_that_arrives_wakes_the_next_one() {
    explore(3, || {
        let pool = two(0);
        let (one, two) = meeting();
        pool.submit(one).expect("a permit is free");
        pool.submit(two).expect("a permit is free");
        pool.wait_until_idle(0);
        pool.close(2, 0);
    });
}

/// A task wakes another one, and then blocks its thread until the other has ended.
#[test]
fn a_task_woken_by_one_that_blocks_runs_on_another_worker() {
    explore(2, || {
        let pool = two(0);
        let (slot, ended) = (Arc::<Slot>::default(), Arc::new(Notify::new()));
        pool.submit(awaits(slot.clone(), notifies(ended.clone()))).expect("a permit is free");
        let waiter = slot.wait();
        let wakes = Box::new(move |pool: &Arc<Pool>, _: &TaskRef| {
            pool.wake(&waiter);
            ended.wait();
            Poll::Ready(())
        });
        pool.submit(wakes).expect("a permit is free");
        pool.wait_until_idle(0);
        pool.close(2, 0);
    });
}

// === rule 4: the worker that ends a task ===

#[test]
fn a_queued_task_starts_when_the_permit_is_released() {
    explore(4, || {
        let pool = Pool::new(&Plan { workers: 2, limit: 1, capacity: 1, cores: 2 });
        pool.submit(ends()).expect("a permit is free");
        pool.submit(ends()).expect("there is room in the queue");
        pool.wait_until_idle(0);
        pool.close(2, 0);
    });
}

/// The caller has its answer before the worker looks for a task once more, so no worker is woken for the caller's next
/// task.
#[test]
fn a_task_submitted_by_the_caller_of_the_last_one_is_taken_by_the_worker_that_looks_once_more() {
    explore(4, || {
        let pool = one(0);
        for _ in 0..3 {
            let task = pool.submit(ends()).expect("the permit was released before the caller was woken");
            pool.wait_for(&task);
        }
        pool.close(3, 0);
    });
}

/// One of two workers looks once more while two tasks are submitted, each of which blocks until the other has begun.
#[test]
fn a_worker_that_looks_once_more_stands_for_one_task_alone() {
    explore(2, || {
        let pool = two(0);
        let task = pool.submit(ends()).expect("a permit is free");
        pool.wait_for(&task);
        let (one, two) = meeting();
        pool.submit(one).expect("a permit is free");
        pool.submit(two).expect("a permit is free");
        pool.wait_until_idle(0);
        pool.close(3, 0);
    });
}

/// The limit is low, and the sampler does not run. A thread that leaves a task waiting starts it.
#[test]
fn a_task_that_finds_no_worker_below_a_low_limit_starts_the_sampler() {
    explore(2, || {
        let pool = two(0);
        pool.dispatch.lower_limit();
        let (one, two) = meeting();
        pool.submit(one).expect("a permit is free");
        pool.submit(two).expect("a permit is free");
        pool.sampler.wait();
        (0..3).for_each(|_| _ = pool.sample(false));
        pool.wait_until_idle(0);
        pool.close(2, 0);
    });
}

/// Workers beyond the limit leave their tasks to the others.
#[test]
fn a_limit_that_falls_loses_no_task() {
    explore(2, || {
        let pool = two(1);
        let sampler = meanwhile(&pool, |pool| _ = pool.sample(true));
        for _ in 0..3 {
            pool.submit(ends()).expect("there is room for three");
        }
        join(sampler);
        pool.wait_until_idle(0);
        pool.close(3, 0);
    });
}

// === queued tasks that end without starting ===

#[test]
fn a_task_whose_caller_leaves_is_taken_or_cancelled_and_never_both() {
    explore(4, || {
        let pool = one(1);
        pool.submit(ends()).expect("a permit is free");
        let task = pool.submit(ends()).expect("there is room in the queue");
        pool.leave(&task);
        pool.wait_until_idle(0);
        pool.close_all(2);
    });
}

#[test]
fn a_queued_task_that_is_cancelled_and_rejected_at_once_is_counted_once() {
    explore(4, || {
        let pool = one(1);
        pool.submit(ends()).expect("a permit is free");
        let task = pool.submit(ends()).expect("there is room in the queue");
        let timer = meanwhile(&pool, |pool| pool.perform(pool.dispatch.expire(LATE)));
        pool.leave(&task);
        join(timer);
        pool.wait_until_idle(0);
        pool.close_all(2);
    });
}

/// A worker drops the late task, because its destructor may block.
#[test]
fn a_late_task_is_taken_or_expired_and_a_worker_drops_it() {
    explore(4, || {
        let pool = one(1);
        pool.submit(ends()).expect("a permit is free");
        let late = pool.submit(ends()).expect("there is room in the queue");
        pool.perform(pool.dispatch.expire(LATE));
        pool.wait_for(&late);
        pool.wait_until_dropped();
        pool.wait_until_idle(0);
        let expired = usize::from(late.was_rejected());
        pool.close(2 - expired, expired);
    });
}

/// The deadline of a drain passes while the worker parks, or works off the queue.
#[test]
fn a_queue_that_is_given_up_loses_no_task() {
    explore(3, || {
        let pool = one(2);
        for _ in 0..3 {
            pool.submit(ends()).expect("there is room for three");
        }
        pool.drain();
        pool.perform(pool.dispatch.reject_all(NOW, Reason::Draining));
        pool.wait_until_idle(0);
        pool.close_all(3);
    });
}

/// No thread can be started while two threads submit: both callers have an answer.
#[test]
fn without_any_worker_every_task_is_answered() {
    explore(4, || {
        let pool = Pool::of(&Plan { workers: 2, limit: 1, capacity: 1, cores: 2 }, false);
        let submit = |pool: &Arc<Pool>| {
            let task = pool.submit(ends()).expect("there is room for two");
            pool.wait_for(&task);
        };
        let other = meanwhile(&pool, submit);
        submit(&pool);
        join(other);
        pool.close_all(2);
    });
}

// === drains, closing, and room ===

/// A drain begins while a task is submitted: the task is rejected, or the drain waits for it.
#[test]
fn a_drain_waits_for_every_task_that_was_admitted() {
    explore(4, || {
        let pool = one(1);
        let submitter = meanwhile(&pool, |pool| pool.submit(ends()).is_ok());
        pool.drain();
        pool.wait_until_idle(0);
        let ended = pool.ended.load(Relaxed);
        let admitted = join(submitter);
        assert_eq!(pool.submit(ends()).err(), Some(Reason::Draining));
        assert_eq!(ended, usize::from(admitted), "the drain waits for the task, unless that was rejected");
        pool.close(usize::from(admitted), 0);
    });
}

/// One task of the pool waits for a drain, which another thread waits for as well.
#[test]
fn a_drain_inside_of_a_task_waits_for_all_tasks_but_that_one() {
    explore(2, || {
        let pool = two(0);
        let drains = Box::new(|pool: &Arc<Pool>, _: &TaskRef| {
            pool.drain();
            pool.wait_until_idle(1);
            Poll::Ready(())
        });
        pool.submit(ends()).expect("a permit is free");
        pool.submit(drains).expect("a permit is free");
        pool.wait_until_idle(0);
        pool.close(2, 0);
    });
}

/// The last handle is dropped while a worker still has a task, or parks.
#[test]
fn a_pool_that_closes_finishes_what_it_has_and_its_workers_end() {
    explore(4, || {
        let pool = one(1);
        pool.submit(ends()).expect("a permit is free");
        pool.submit(ends()).expect("there is room in the queue");
        pool.close(2, 0);
    });
}

/// A task is woken after the pool has closed and its workers have ended: a worker is started for it.
#[test]
fn a_task_woken_after_the_pool_closed_ends() {
    explore(4, || {
        let pool = one(0);
        let slot = Arc::<Slot>::default();
        pool.submit(awaits(slot.clone(), ends())).expect("a permit is free");
        for thread in pool.dispatch.close() {
            thread.unpark();
        }
        pool.wake(&slot.wait());
        pool.wait_until_idle(0);
        pool.close(1, 0);
    });
}

/// The task that holds the only place ends while another one finds no room, and before it waits for some.
#[test]
fn a_task_that_waits_for_room_is_admitted_when_there_is_some() {
    explore(4, || {
        let pool = one(0);
        pool.submit(ends()).expect("a permit is free");
        let patient = pool.submit_patiently(ends).expect("the pool does not drain");
        pool.wait_for(&patient);
        pool.close(2, 0);
    });
}

// === tasks that wait for a task of the same pool ===

#[test]
fn the_only_worker_may_wait_for_a_task_of_its_own_pool() {
    for capacity in 0..2 {
        explore(4, move || {
            let pool = one(capacity);
            pool.submit(waits_for(ends)).expect("a permit is free");
            pool.wait_until_idle(0);
            pool.close(2, 0);
        });
    }
}

/// The wake-up comes while the worker that waits polls the inner task.
#[test]
fn the_only_worker_may_wait_for_a_task_that_yields() {
    explore(4, || {
        let pool = one(1);
        pool.submit(waits_for(yields)).expect("a permit is free");
        pool.wait_until_idle(0);
        pool.close(2, 0);
    });
}

/// The wake-up comes from another thread, while the worker that waits is about to block.
#[test]
fn the_only_worker_may_wait_for_a_task_that_is_woken() {
    explore(4, || {
        let pool = one(1);
        let slot = Arc::<Slot>::default();
        let inner = slot.clone();
        pool.submit(waits_for(move || awaits(inner.clone(), ends()))).expect("a permit is free");
        pool.wake(&slot.wait());
        pool.wait_until_idle(0);
        pool.close(2, 0);
    });
}

/// Another worker releases a permit and takes the inner task, while the worker that waits for it takes it as well.
#[test]
fn a_task_to_run_in_place_is_polled_by_one_of_two_workers() {
    explore(3, || {
        let pool = two(1);
        pool.submit(ends()).expect("a permit is free");
        pool.submit(waits_for(ends)).expect("a permit is free");
        pool.wait_until_idle(0);
        pool.close(3, 0);
    });
}

/// The limit is low, and the worker blocks for an inner task that has a permit. The sampler gets it another worker.
#[test]
fn a_task_that_is_awaited_below_a_low_limit_gets_a_worker_of_its_own() {
    explore(3, || {
        let pool = two(1);
        pool.dispatch.lower_limit();
        pool.submit(blocks_on(ends)).expect("a permit is free");
        pool.sampler.wait();
        pool.wait_until_blocked();
        (0..3).for_each(|_| _ = pool.sample(false));
        pool.wait_until_idle(0);
        pool.close(2, 0);
    });
}

/// There are permits for all, and each worker blocks for an inner task: the last one runs its own in place.
#[test]
fn both_workers_may_block_for_inner_tasks_that_have_a_permit() {
    explore(2, || {
        let pool = Pool::new(&Plan { workers: 2, limit: 4, capacity: 2, cores: 2 });
        for _ in 0..2 {
            pool.submit(blocks_on(ends)).expect("a permit is free");
        }
        pool.wait_until_idle(0);
        pool.close(4, 0);
    });
}

/// The inner task yields on one worker, while the other one waits for it and a third task wants a worker as well.
#[test]
fn a_task_that_yields_on_another_worker_ends() {
    explore(2, || {
        let pool = two(1);
        let outer = pool.submit(waits_for(yields)).expect("a permit is free");
        let after = Box::new(move |pool: &Arc<Pool>, _: &TaskRef| {
            pool.wait_on_worker_for(&outer);
            Poll::Ready(())
        });
        pool.submit(after).expect("a permit is free");
        pool.wait_until_idle(0);
        pool.close(3, 0);
    });
}

/// The queue's timer rejects the inner task while a worker is about to run it in place.
#[test]
fn a_task_to_run_in_place_is_polled_or_rejected_and_never_both() {
    explore(4, || {
        let pool = one(1);
        let timer = meanwhile(&pool, |pool| pool.perform(pool.dispatch.expire(LATE)));
        pool.submit(waits_for(ends)).expect("a permit is free");
        join(timer);
        pool.wait_until_idle(0);
        pool.close_all(2);
    });
}

// === the state of a task ===

/// A task that ends when all of its events have come. The thread that begins a poll polls until the task is idle.
struct Polls {
    state: TaskState,
    /// Relaxed: the task's state alone must make a waker's writes visible to the poll.
    events: [AtomicBool; 2],
    polled: std::sync::atomic::AtomicBool,
}

impl Polls {
    fn new() -> Arc<Self> {
        let events = [(); 2].map(|()| AtomicBool::new(false));
        Arc::new(Self { state: TaskState::new(), events, polled: std::sync::atomic::AtomicBool::new(false) })
    }

    /// An entry in a list of ready tasks, which may be stale.
    fn run(&self) {
        while let Some(begun) = self.state.begin_poll() {
            assert!(!self.polled.swap(true, Relaxed), "one thread at a time polls a task");
            let ready = self.events.iter().all(|event| event.load(Relaxed)) || begun.caller_left;
            self.polled.store(false, Relaxed);
            if ready {
                self.state.end();
            } else if self.state.end_poll() == Wakeup::Nothing {
                return;
            }
        }
    }

    fn wake(&self) {
        if self.state.wake() != Wakeup::Nothing {
            self.run();
        }
    }

    /// Runs each call on a thread, and waits for all of them.
    fn at_once<const N: usize>(self: &Arc<Self>, calls: [fn(&Self); N]) {
        let threads = calls.map(|call| {
            let this = self.clone();
            thread::spawn(move || call(&this))
        });
        threads.into_iter().for_each(join);
    }
}

/// Two wakers, the first poll, and a stale entry.
#[test]
fn a_wake_up_is_never_lost_and_two_threads_never_poll_at_once() {
    explore(4, || {
        let task = Polls::new();
        task.at_once([
            Polls::run,
            |task| {
                task.events[0].store(true, Relaxed);
                task.wake();
            },
            |task| {
                task.events[1].store(true, Relaxed);
                task.wake();
                task.run();
            },
        ]);
        assert!(task.state.has_ended(), "a wake-up was lost");
        assert_eq!((task.state.wake(), task.state.begin_poll()), (Wakeup::Nothing, None));
    });
}

#[test]
fn a_task_whose_caller_leaves_is_polled_once_more_and_ends() {
    explore(5, || {
        let task = Polls::new();
        task.at_once([Polls::run, |task| {
            task.state.caller_left();
            task.wake();
        }]);
        assert!(task.state.has_ended(), "nothing ends it");
    });
}

/// A caller whose rejection says that its task did not start may send the request again.
#[test]
fn a_task_that_was_said_not_to_have_started_never_does() {
    explore(5, || {
        let state = Arc::new(TaskState::new());
        let worker = {
            let state = state.clone();
            thread::spawn(move || state.begin_poll().is_some_and(|begun| !begun.too_late))
        };
        let started = state.deadline_passed();
        assert_eq!(join(worker), started);
        assert_eq!(state.has_started(), started);
    });
}

#[test]
fn a_task_ends_with_the_last_guard_of_its_permit() {
    explore(3, || {
        let task = Arc::new((TaskState::new(), Continuation::default()));
        let (state, continuation) = &*task;
        continuation.hold();
        state.will_continue();
        state.begin_poll().expect("it is scheduled");
        let guard = {
            let task = task.clone();
            thread::spawn(move || {
                let (state, continuation) = &*task;
                if continuation.release() && state.was_answered() {
                    state.wake();
                }
            })
        };
        state.answered();
        let ends = !continuation.is_held();
        let polled_again = !ends && state.end_poll() == Wakeup::Schedule;
        guard.join().expect("it ends");
        assert!(ends || polled_again || state.begin_poll().is_some(), "nobody polls it any more");
    });
}
