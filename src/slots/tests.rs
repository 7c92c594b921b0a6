//! The stack of values under arbitrary sequences of events, against a simple count; and a loader that panics.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use proptest::prelude::*;
use tokio::sync::oneshot::{self, Receiver};

use super::bounds::Bounds;
use super::inner::Inner;
use super::loader::Context;
use super::recipe::{Hooks, Version};
use super::request::{Request, Swapped};
use super::rollout::{Rollouts, Running};
use super::stack::{Gone, Slot, Stack, Taken};
use crate::error::SlotError;

fn request() -> (Request<u8>, Receiver<Result<Swapped, SlotError>>) {
    let (caller, answer) = oneshot::channel();
    (Request { make: Arc::new(|| Ok(2)), context: Context::capture(), caller }, answer)
}

#[test]
fn a_loader_that_panics_fails_its_swaps_and_the_next_swap_starts_another_one() {
    let hooks = Hooks { warm_up: None, recycle: None, keep_alive: None, max_lifetime: None, keep_on_panic: false };
    let version = Version { generation: 1, make: Arc::new(|| Ok(1)) };
    let inner = Arc::new(Inner::new("panics".to_owned(), None, version));
    let rollouts = Rollouts { inner: inner.clone(), hooks: Arc::new(hooks), bounds: Bounds::None };
    let (first, mut answer) = request();
    assert!(inner.add_request(first), "it starts a loader");
    let unwound = catch_unwind(AssertUnwindSafe(|| {
        let _running = Running::begin(&rollouts);
        panic!("the loader");
    }));
    assert!(unwound.is_err());
    assert!(matches!(answer.try_recv(), Ok(Err(SlotError::Make(_)))));
    let (second, mut answer) = request();
    assert!(inner.add_request(second), "it starts another one");
    rollouts.run();
    assert_eq!(answer.try_recv().unwrap().unwrap().generation, 2);
}

#[derive(Clone, Copy, Debug)]
enum Event {
    /// The task with this number asks for a value, if it has none and a permit is free.
    Take(u8),
    Put(usize),
    Lose(usize),
    Limit(usize),
    /// The loader has made a value: the first one of a version, or a further one.
    Loaded,
    DropReplaced,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => any::<u8>().prop_map(Event::Take),
        4 => any::<usize>().prop_map(Event::Put),
        1 => any::<usize>().prop_map(Event::Lose),
        1 => (1..6_usize).prop_map(Event::Limit),
        2 => Just(Event::Loaded),
        2 => Just(Event::DropReplaced),
    ]
}

fn slot(generation: u64) -> Box<Slot<()>> {
    Box::new(Slot { value: (), generation, expires: None })
}

proptest! {
    #[test]
    fn no_value_is_lost_and_there_are_no_more_than_permits_and_one(events in prop::collection::vec(event(), 1..300)) {
        let (mut stack, mut limit) = (Stack::<(), u8>::new(None), 5);
        let mut used: Vec<(u8, Box<Slot<()>>)> = Vec::new();
        // Values that exist: made, and not dropped.
        let mut exist = 0_usize;
        let mut highest = limit;
        for event in events {
            let mut gone = Gone::new();
            match event {
                Event::Take(task) if used.len() < limit && !stack.holds(task) => {
                    let before = (stack.idle(), stack.is_staged());
                    let slot = match stack.take(task, &[], None, &mut gone) {
                        Taken::Used(slot) => {
                            prop_assert!(before.0 > 0);
                            slot
                        }
                        Taken::New(slot) => {
                            prop_assert!(before == (0, true));
                            slot
                        }
                        Taken::Make => {
                            prop_assert_eq!(before, (0, false), "a value is made only if none is there");
                            exist += 1;
                            stack.made(task, stack.generation());
                            slot(stack.generation())
                        }
                        Taken::Nested => return Err(TestCaseError::fail("the task has none")),
                    };
                    used.push((task, slot));
                }
                Event::Take(task) if stack.holds(task) => {
                    prop_assert!(matches!(stack.take(task, &[], None, &mut gone), Taken::Nested));
                    prop_assert!(matches!(stack.take(task.wrapping_add(1), &[task], None, &mut gone), Taken::Nested)
                        || stack.holds(task.wrapping_add(1)));
                }
                Event::Put(at) if !used.is_empty() => {
                    let (task, slot) = used.swap_remove(at % used.len());
                    stack.put(task, slot, limit, None, &mut gone);
                    // The limit may have fallen below the values in use.
                    prop_assert!(stack.live() <= limit.max(used.len()));
                }
                Event::Lose(at) if !used.is_empty() => {
                    let (task, slot) = used.swap_remove(at % used.len());
                    exist -= 1;
                    stack.lost(task, Some(slot.generation), limit);
                }
                Event::Limit(new) => {
                    limit = new;
                    highest = highest.max(limit);
                }
                // The loader drops what was replaced before it makes the next value.
                Event::Loaded if !stack.is_staged() => {
                    exist -= stack.take_replaced().len();
                    exist += 1;
                    if stack.outdated() > 0 {
                        stack.stage(slot(stack.generation()), limit);
                    } else {
                        stack.begin_version(slot(stack.generation() + 1), limit);
                    }
                }
                Event::DropReplaced => gone.extend(stack.take_replaced()),
                _ => {}
            }
            exist -= gone.len();
            prop_assert!(stack.in_use() == used.len());
            let staged = usize::from(stack.is_staged());
            prop_assert!(stack.idle() + used.len() + staged <= highest + 1);
            // An earlier version never stays idle while its replacement waits.
            prop_assert!(!stack.is_staged() || stack.outdated() > 0);
        }
        let replaced = stack.take_replaced().len();
        let staged = usize::from(stack.is_staged());
        prop_assert_eq!(exist, used.len() + stack.idle() + staged + replaced);
    }
}
