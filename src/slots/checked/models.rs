//! Models of values that are taken, put back and swapped while the pool's limit falls. Loom runs them through every
//! interleaving of their threads, up to a bound on preemptions.
//!
//! The lock, the stack and the loader are the real ones. Only the code of a task around them is repeated here.
//!
//! | broken | fails |
//! |---|---|
//! | `change` does not unpark the loader | `a_swap_replaces_every_value_while_tasks_use_them` |
//! | `put` keeps what exceeds the limit | `a_limit_that_falls_lets_values_go_as_they_are_put_back` |
//! | `settle` forgets the staged value where the last earlier one is gone | `a_swap_ends_although_the_limit_falls_and_values_are_lost` |
//! | a request starts a loader although one is starting | `a_second_swap_is_taken_by_the_loader_or_starts_another_one` |
//! | `begin` does not look whether the slots have closed | `slots_that_close_in_the_middle_of_a_swap_keep_no_value` |
//! | `close` does not unpark the loader | `slots_that_close_while_the_loader_pauses_end_it` |

use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};

use loom::sync::atomic::AtomicUsize;
use loom::thread::{self, JoinHandle};
use tokio::sync::oneshot::{self, Receiver};

use crate::error::SlotError;
use crate::slots::bounds::Bounds;
use crate::slots::inner::Inner;
use crate::slots::loader::Context;
use crate::slots::recipe::{BoxError, Hooks, Version};
use crate::slots::request::{Request, Swapped};
use crate::slots::rollout::Rollouts;
use crate::slots::stack::{Slot, Taken};

fn explore(preemptions: usize, model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(model);
}

/// A value that counts itself.
struct Value(Arc<Counts>);

#[derive(Default)]
struct Counts {
    live: std::sync::atomic::AtomicUsize,
    peak: std::sync::atomic::AtomicUsize,
}

impl Value {
    fn new(counts: &Arc<Counts>) -> Self {
        let live = counts.live.fetch_add(1, SeqCst) + 1;
        counts.peak.fetch_max(live, SeqCst);
        Self(counts.clone())
    }
}

impl Drop for Value {
    fn drop(&mut self) {
        self.0.live.fetch_sub(1, SeqCst);
    }
}

/// Slots whose limit the model sets.
#[derive(Clone)]
struct Slots {
    inner: Arc<Inner<Value>>,
    hooks: Arc<Hooks<Value>>,
    limit: Arc<AtomicUsize>,
    counts: Arc<Counts>,
}

type Answer = Receiver<Result<Swapped, SlotError>>;

impl Slots {
    /// Slots with as many idle values as the limit allows.
    fn new(limit: usize) -> Self {
        let counts = Arc::<Counts>::default();
        let hooks = Hooks { warm_up: None, recycle: None, keep_alive: None, max_lifetime: None, keep_on_panic: false };
        let made = counts.clone();
        let version = Version { generation: 1, make: Arc::new(move || Ok(Value::new(&made))) };
        let inner = Arc::new(Inner::new("model".to_owned(), None, version));
        let this = Self { inner, hooks: Arc::new(hooks), limit: Arc::new(AtomicUsize::new(limit)), counts };
        let taken: Vec<_> = (0..limit).map(|task| (task, this.take(task))).collect();
        taken.into_iter().for_each(|(task, slot)| this.put(task, slot));
        this
    }

    fn bounds(&self) -> Bounds {
        Bounds::Model(self.limit.clone())
    }

    fn take(&self, task: usize) -> Box<Slot<Value>> {
        let task = id(task);
        let taken = self.inner.change(|state, gone| state.stack.take(task, &[], None, gone));
        match taken {
            Taken::Used(slot) | Taken::New(slot) => slot,
            Taken::Make => {
                let version = self.inner.lock().current.clone().expect("the slots are open");
                let slot = version.produce(&self.hooks).expect("it is made");
                self.inner.change(|state, _| state.stack.made(task, slot.generation));
                slot
            }
            Taken::Nested => unreachable!("each task takes one value"),
        }
    }

    fn put(&self, task: usize, slot: Box<Slot<Value>>) {
        let limit = self.bounds().limit();
        self.inner.change(|state, gone| state.stack.put(id(task), slot, limit, None, gone));
    }

    /// The task drops its value.
    fn lose(&self, task: usize, slot: Box<Slot<Value>>) {
        let generation = slot.generation;
        drop(slot);
        let limit = self.bounds().limit();
        self.inner.change(|state, _| state.stack.lost(id(task), Some(generation), limit));
    }

    /// Asks for a swap, and starts its loader unless one runs.
    fn swap(&self) -> (Answer, Option<JoinHandle<()>>) {
        self.swap_with(|counts| Ok(Value::new(counts)))
    }

    fn swap_with<F>(&self, make: F) -> (Answer, Option<JoinHandle<()>>)
    where
        F: Fn(&Arc<Counts>) -> Result<Value, BoxError> + Send + Sync + 'static,
    {
        let (caller, answer) = oneshot::channel();
        let counts = self.counts.clone();
        let request = Request { make: Arc::new(move || make(&counts)), context: Context::capture(), caller };
        let loader = self.inner.add_request(request).then(|| {
            let rollouts = Rollouts { inner: self.inner.clone(), hooks: self.hooks.clone(), bounds: self.bounds() };
            thread::spawn(move || rollouts.run())
        });
        (answer, loader)
    }

    fn task(&self, number: usize) -> JoinHandle<()> {
        let slots = self.clone();
        thread::spawn(move || {
            let slot = slots.take(number);
            slots.put(number, slot);
        })
    }

    fn live(&self) -> usize {
        self.counts.live.load(SeqCst)
    }

    /// What must hold when every thread has ended.
    fn check(&self) {
        let state = self.inner.lock();
        assert_eq!((state.stack.in_use(), state.stack.making(), state.stack.outdated()), (0, 0, 0));
        assert_eq!(state.stack.idle(), self.live(), "every value is idle or dropped");
        assert!(state.rollout.is_none() && state.previous.is_none() && state.requests.is_empty());
    }
}

fn id(task: usize) -> crate::slots::inner::TaskId {
    crate::slots::inner::TaskId::Alone(task as u64)
}

fn join<T>(thread: JoinHandle<T>) -> T {
    thread.join().expect("no thread panics")
}

fn swapped(mut answer: Answer) -> Swapped {
    answer.try_recv().expect("the swap has ended").expect("it succeeds")
}

#[test]
fn a_limit_that_falls_lets_values_go_as_they_are_put_back() {
    explore(3, || {
        let slots = Slots::new(2);
        let tasks = [slots.task(0), slots.task(1)];
        slots.limit.store(1, Relaxed);
        tasks.into_iter().for_each(join);
        // A task that read the limit before it fell may have kept its value; the next one lets it go.
        join(slots.task(2));
        assert_eq!(slots.live(), 1);
        slots.check();
    });
}

#[test]
fn a_swap_replaces_every_value_while_tasks_use_them() {
    explore(3, || {
        let slots = Slots::new(1);
        let task = slots.task(0);
        let (answer, loader) = slots.swap();
        join(task);
        join(loader.expect("it is the first"));
        let swapped = swapped(answer);
        assert_eq!((swapped.generation, swapped.outdated, slots.live()), (2, 0, 1));
        assert!(slots.counts.peak.load(SeqCst) <= 2, "one value more than the limit");
        slots.check();
    });
}

#[test]
fn a_swap_ends_although_the_limit_falls_and_values_are_lost() {
    explore(3, || {
        let slots = Slots::new(2);
        let slot = slots.take(0);
        let (answer, loader) = slots.swap();
        let task = slots.task(1);
        slots.limit.store(1, Relaxed);
        slots.lose(0, slot);
        join(task);
        join(loader.expect("it is the first"));
        assert_eq!(swapped(answer).outdated, 0);
        join(slots.task(2));
        assert!(slots.live() <= 1 && slots.counts.peak.load(SeqCst) <= 3);
        slots.check();
    });
}

#[test]
fn a_second_swap_is_taken_by_the_loader_or_starts_another_one() {
    explore(3, || {
        let slots = Slots::new(1);
        let (first, one) = slots.swap();
        let (second, other) = slots.swap();
        join(one.expect("it is the first"));
        other.into_iter().for_each(join);
        assert_eq!((swapped(first).generation, swapped(second).generation), (2, 3));
        assert_eq!(slots.live(), 1);
        slots.check();
    });
}

#[test]
fn slots_that_close_in_the_middle_of_a_swap_keep_no_value() {
    explore(3, || {
        let slots = Slots::new(1);
        let (mut answer, loader) = slots.swap();
        slots.inner.close();
        join(loader.expect("it is the first"));
        assert_eq!(slots.live(), 0);
        let answer = answer.try_recv();
        assert!(!matches!(answer, Ok(Ok(ref swapped)) if swapped.generation != 2), "{answer:?}");
    });
}

/// The second value of the new version cannot be made, and models have no clock: only the close ends the pause.
#[test]
fn slots_that_close_while_the_loader_pauses_end_it() {
    explore(3, || {
        let slots = Slots::new(2);
        let made = std::sync::atomic::AtomicUsize::new(0);
        let (answer, loader) = slots.swap_with(move |counts| match made.fetch_add(1, SeqCst) {
            0 => Ok(Value::new(counts)),
            _ => Err("only one fits".into()),
        });
        slots.inner.close();
        join(loader.expect("it is the first"));
        drop(answer);
        assert_eq!(slots.live(), 0);
    });
}
