//! The catalog against an ideal LRU, and under arbitrary sequences of events.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::catalog::{Catalog, Freed, Got, Loaded};
use crate::error::MakeError;

type Models = Catalog<u64, usize>;

fn begin(catalog: &mut Models, now: Instant, left: &[usize], known: bool) -> (Option<Arc<str>>, Freed<u64, usize>) {
    let mut freed = Freed::default();
    let begun = catalog.begin(now, |waiter| left.contains(waiter), |_waiter| (known.then_some(10), ()), &mut freed);
    (begun.map(|(key, ())| key), freed)
}

/// A caller asks for `key`, and a load that it needs ends at once.
fn ask(catalog: &mut Models, key: &str, now: Instant) -> u64 {
    match catalog.get(key, now, || 0) {
        Got::Model(_, version) => version,
        Got::Waits => {
            let (key, _freed) = begin(catalog, now, &[], true);
            let ended = catalog.loaded(&key.expect("nothing is held"), 10, 10, now, |_| false, &mut Vec::new());
            let Some(Loaded::Model { version, waiters, .. }) = ended else { panic!("{ended:?}") };
            assert_eq!(waiters.len(), 1);
            version
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_thousand_models_of_a_zipf_distribution_are_loaded_as_often_as_by_an_ideal_lru() {
    let (mut catalog, now) = (Models::new(500, 1, 10), Instant::now());
    let weights: Vec<f64> = (1..=1000).map(|rank| 1.0 / f64::from(rank)).collect();
    let total: f64 = weights.iter().sum();
    let mut lru: Vec<usize> = Vec::new();
    let (mut misses, mut state) = (0, 7_u64);
    for _ in 0..50_000 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let mut left = (state >> 11) as f64 / (1_u64 << 53) as f64 * total;
        let place = weights.iter().position(|weight| {
            left -= weight;
            left < 0.0
        });
        let place = place.unwrap_or(999);
        match lru.iter().position(|&other| other == place) {
            Some(at) => drop(lru.remove(at)),
            None => misses += 1,
        }
        lru.insert(0, place);
        lru.truncate(50);
        let key = place.to_string();
        let version = ask(&mut catalog, &key, now);
        catalog.release(&key, version);
        assert!(catalog.stats("").bytes <= 500);
    }
    let stats = catalog.stats("");
    assert_eq!((stats.loads_ok, stats.evictions, stats.loaded.len()), (misses, misses - 50, 50));
}

#[test]
fn a_failed_load_is_answered_at_once_for_a_second_at_first_and_for_a_minute_at_most() {
    let (mut catalog, mut now) = (Models::new(100, 1, 10), Instant::now());
    for seconds in [1, 2, 4, 8, 16, 32, 60, 60] {
        assert!(matches!(catalog.get("key", now, || 0), Got::Waits));
        let (key, _) = begin(&mut catalog, now, &[], true);
        let ended = catalog.failed(&key.unwrap(), MakeError::new("away"), now);
        assert!(matches!(ended, Some(Loaded::Failed(_, waiters)) if waiters == [0]));
        now += Duration::from_secs(seconds) - Duration::from_millis(1);
        assert!(matches!(catalog.get("key", now, || 0), Got::Failed(_)), "{seconds}");
        now += Duration::from_millis(1);
    }
    assert!(matches!(catalog.get("key", now, || 0), Got::Waits));
    let (key, _) = begin(&mut catalog, now, &[], true);
    assert!(catalog.loaded(&key.unwrap(), 1, 10, now, |_| false, &mut Vec::new()).is_some());
    let stats = catalog.stats("");
    assert_eq!((stats.loads_ok, stats.loads_failed), (1, 8));
}

#[test]
fn the_callers_and_the_catalog_have_the_only_references_to_a_model() {
    let (mut catalog, now) = (Models::new(10, 1, 10), Instant::now());
    for waiter in 0..2 {
        assert!(matches!(catalog.get("a", now, || waiter), Got::Waits));
    }
    let (key, _freed) = begin(&mut catalog, now, &[], true);
    let ended = catalog.loaded(&key.unwrap(), 7, 10, now, |_| false, &mut Vec::new());
    let Some(Loaded::Model { waiters, .. }) = ended else { panic!("{ended:?}") };
    assert_eq!((waiters.len(), Arc::strong_count(&waiters[0].1)), (2, 3));
}

#[test]
fn loads_that_are_asked_for_and_given_up_in_a_loop_leave_nothing_behind() {
    let (mut catalog, now) = (Models::new(10, 1, 10), Instant::now());
    ask(&mut catalog, "held", now);
    assert!(matches!(catalog.get("first", now, || 1), Got::Waits));
    assert!(begin(&mut catalog, now, &[], true).0.is_none(), "it does not fit");
    for _ in 0..100 {
        assert!(matches!(catalog.get("unloaded", now, || 2), Got::Waits));
        assert_eq!(catalog.unload("unloaded").map(|(_, waiters)| waiters), Some(vec![2]));
        assert!(matches!(catalog.get("left", now, || 3), Got::Waits));
        assert_eq!(catalog.forget_left("left", |&waiter| waiter == 3), [3]);
    }
    assert_eq!((catalog.queued(), catalog.stats("").loading), (1, vec!["first".to_owned()]));
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_load_that_has_waited_for_a_second_gets_the_room_of_the_model_that_was_asked_for_least_recently() {
    let (mut catalog, mut now) = (Models::new(20, 1, 10), Instant::now());
    let (a, b) = (ask(&mut catalog, "a", now), ask(&mut catalog, "b", now));
    assert_eq!(ask(&mut catalog, "a", now), a);
    assert!(matches!(catalog.get("c", now, || 7), Got::Waits));
    for _ in 0..10 {
        assert!(begin(&mut catalog, now, &[], true).0.is_none());
        // Before the second is over, callers of both are served.
        assert_eq!(ask(&mut catalog, "b", now), b);
        assert_eq!(ask(&mut catalog, "a", now), a);
        catalog.release("a", a);
        catalog.release("b", b);
        now += SECOND / 10;
    }
    assert!(begin(&mut catalog, now, &[], true).0.is_none(), "both are held");
    assert!(matches!(catalog.get("b", now, || 8), Got::Waits));
    assert_eq!(ask(&mut catalog, "a", now), a);
    catalog.release("b", b);
    let (key, freed) = begin(&mut catalog, now, &[], true);
    assert_eq!((key.as_deref(), freed.gone.len(), catalog.stats("").evictions), (Some("c"), 1, 1));
    let ended = catalog.loaded(&key.unwrap(), 10, 10, now, |_| false, &mut Vec::new());
    assert!(matches!(ended, Some(Loaded::Model { .. })));
    // The new model serves for a second, although the load of `b` has waited.
    now += SECOND - Duration::from_millis(1);
    (0..3).for_each(|_| catalog.release("a", a));
    let (key, _freed) = begin(&mut catalog, now, &[], true);
    assert_eq!((key.as_deref(), catalog.stats("").loaded.len()), (Some("b"), 1), "`a` is idle");
    assert!(matches!(catalog.get("c", now, || 9), Got::Model(..)));
}

#[test]
fn a_caller_that_holds_a_model_and_asks_for_it_again_waits_for_itself_for_a_second() {
    let (mut catalog, mut now) = (Models::new(10, 1, 10), Instant::now());
    let held = ask(&mut catalog, "a", now);
    assert!(matches!(catalog.get("b", now, || 1), Got::Waits));
    now += SECOND;
    assert!(begin(&mut catalog, now, &[], true).0.is_none());
    assert!(matches!(catalog.get("a", now, || 2), Got::Waits));
    now += SECOND - Duration::from_millis(1);
    let (key, freed) = begin(&mut catalog, now, &[], true);
    assert!(key.is_none() && freed.ended.is_empty());
    now += Duration::from_millis(1);
    let (key, freed) = begin(&mut catalog, now, &[], true);
    assert!(key.is_none());
    let [(key, Loaded::Model { version, waiters, .. })] = &freed.ended[..] else { panic!("{freed:?}") };
    assert_eq!((&**key, *version, waiters[0].0), ("a", held, 2));
    // A swap that waits does not get the model before.
    now += 2 * SECOND;
    assert!(begin(&mut catalog, now, &[], true).0.is_none());
    assert!(matches!(catalog.get("a", now, || 3), Got::Waits));
    assert!(matches!(catalog.swap("a", now, || 4), Got::Waits));
    assert_eq!(catalog.forget_left("b", |_waiter| true), [1]);
    let (key, freed) = begin(&mut catalog, now, &[], true);
    assert!(key.as_deref() == Some("a") && freed.ended.is_empty(), "the load of the swap begins");
}

#[test]
fn a_load_that_fits_passes_one_that_does_not_except_while_models_make_room_for_that_one() {
    let (mut catalog, mut now) = (Models::new(100, 1, 10), Instant::now());
    let weigh = |catalog: &mut Models, now| {
        let mut freed = Freed::default();
        let weight = |waiter: &usize| (Some(*waiter as u64), ());
        catalog.begin(now, |_| false, weight, &mut freed).map(|(key, ())| key.to_string())
    };
    let load = |catalog: &mut Models, key: &str, weight: usize, now| {
        assert!(matches!(catalog.get(key, now, || weight), Got::Waits));
        let begun = weigh(catalog, now);
        if begun.as_deref() == Some(key) {
            let ended = catalog.loaded(&Arc::from(key), 0, weight as u64, now, |_| false, &mut Vec::new());
            assert!(matches!(ended, Some(Loaded::Model { .. })));
        }
        begun
    };
    assert_eq!(load(&mut catalog, "held", 60, now).as_deref(), Some("held"));
    assert_eq!(load(&mut catalog, "large", 90, now), None, "it does not fit beside the one that is held");
    assert_eq!(load(&mut catalog, "small", 10, now).as_deref(), Some("small"));
    now += SECOND;
    assert_eq!(load(&mut catalog, "later", 10, now), None, "room is made for the large one");
    now += SECOND;
    assert_eq!(weigh(&mut catalog, now).as_deref(), Some("later"), "the large one pauses");
    let ended = catalog.loaded(&Arc::from("later"), 0, 10, now, |_| false, &mut Vec::new());
    let Some(Loaded::Model { version, .. }) = ended else { panic!("{ended:?}") };
    // All others can go: the large one is next.
    catalog.release("held", 1);
    catalog.release("small", 2);
    catalog.release("later", version);
    assert_eq!(load(&mut catalog, "last", 20, now).as_deref(), Some("large"));
}

#[test]
fn a_load_that_was_given_up_keeps_no_other_from_beginning() {
    let (mut catalog, now) = (Models::new(100, 1, 10), Instant::now());
    for known in [true, false] {
        let (hangs, other) = (format!("hangs {known}"), format!("other {known}"));
        assert!(matches!(catalog.get(&hangs, now, || 1), Got::Waits));
        assert_eq!(begin(&mut catalog, now, &[], known).0.as_deref(), Some(&*hangs));
        assert!(matches!(catalog.get(&other, now, || 2), Got::Waits));
        assert_eq!(begin(&mut catalog, now, &[], known).0, None, "one load at a time");
        assert_eq!(catalog.unload(&hangs).map(|(_, waiters)| waiters), Some(vec![1]));
        assert_eq!(begin(&mut catalog, now, &[], known).0.as_deref(), Some(&*other));
        let before = catalog.stats("").bytes;
        assert!(catalog.unload(&hangs).is_some(), "a second time changes nothing");
        assert!(matches!(catalog.get("third", now, || 3), Got::Waits));
        assert_eq!(begin(&mut catalog, now, &[], known).0, None, "one load at a time");
        // It ends after all: its model is dropped, and the load that runs counts as before.
        let mut gone = Vec::new();
        assert!(catalog.loaded(&Arc::from(&*hangs), 7, 10, now, |_| false, &mut gone).is_some());
        assert_eq!((gone.len(), begin(&mut catalog, now, &[], known).0), (1, None));
        assert_eq!(catalog.stats("").bytes, before - if known { 10 } else { 0 });
        assert!(catalog.failed(&Arc::from(&*other), MakeError::new("away"), now).is_some());
        assert_eq!(catalog.forget_left("third", |_| true), [3]);
    }
    assert_eq!((catalog.stats("").bytes, catalog.stats("").loading.len()), (0, 0));
}

#[derive(Clone, Copy, Debug)]
enum Event {
    Get(u8),
    Swap(u8),
    Release(usize),
    /// A load ends with a model of this weight, or fails.
    End(usize, Option<u64>),
    /// A caller that waits leaves.
    Leave(usize),
    Unload(u8),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (0..8_u8).prop_map(Event::Get),
        2 => (0..8_u8).prop_map(Event::Swap),
        3 => any::<usize>().prop_map(Event::Release),
        3 => (any::<usize>(), proptest::option::weighted(0.8, 1..130_u64)).prop_map(|(at, weight)| Event::End(at, weight)),
        1 => any::<usize>().prop_map(Event::Leave),
        1 => (0..8_u8).prop_map(Event::Unload),
    ]
}

/// Who waits, who holds and what is loaded, as the tests see it.
#[derive(Default)]
struct Seen {
    waiting: BTreeMap<usize, String>,
    left: Vec<usize>,
    held: Vec<(String, u64)>,
    loading: Vec<Arc<str>>,
    /// Those of them whose model was unloaded.
    given_up: BTreeSet<String>,
    /// The weight of the largest model that was loaded, and of the estimates.
    largest: u64,
    next: usize,
}

/// What is known of the weights before a load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Weights {
    /// Nothing. Each load of a key has the same weight.
    Unknown,
    /// They are estimated correctly.
    Right,
    /// The estimates may be wrong.
    Wrong,
}

impl Seen {
    fn asked(&mut self, got: Got<u64>, key: String) -> Result<(), TestCaseError> {
        match got {
            Got::Model(_, version) => self.held.push((key, version)),
            Got::Waits => {
                self.waiting.insert(self.next, key);
                self.next += 1;
            }
            Got::Full => prop_assert!(self.waiting.len() >= 16),
            Got::Failed(_) => {}
        }
        Ok(())
    }

    fn ended(&mut self, key: &str, loaded: Loaded<u64, usize>) {
        let waiters = match loaded {
            Loaded::Model { version, waiters, replaced, .. } => {
                // A caller that has left releases its model at once; here a little later. So does the thread that drops a
                // model that was replaced.
                self.held.extend(waiters.iter().map(|_| (key.to_owned(), version)));
                self.held.extend(replaced.map(|(_, version)| (key.to_owned(), version)));
                waiters.into_iter().map(|(waiter, _model)| waiter).collect()
            }
            Loaded::Failed(_, waiters) => waiters,
        };
        for waiter in waiters {
            assert!(self.waiting.remove(&waiter).is_some_and(|of| of == key), "every caller is answered once");
        }
    }
}

proptest! {
    #[test]
    fn whatever_happens_every_caller_is_answered_once_and_the_budget_is_exceeded_by_one_model_at_most(
        events in prop::collection::vec(event(), 1..200),
        loading in 1..4_usize,
        weights in prop_oneof![Just(Weights::Unknown), Just(Weights::Right), Just(Weights::Wrong)],
    ) {
        let (mut catalog, mut now, mut seen) = (Models::new(100, loading, 16), Instant::now(), Seen::default());
        let known = weights != Weights::Unknown;
        for event in events {
            now += Duration::from_millis(400);
            match event {
                Event::Get(key) => {
                    let (key, number) = (format!("k{key}"), seen.next);
                    let got = catalog.get(&key, now, || number);
                    seen.asked(got, key)?;
                }
                Event::Swap(key) => {
                    let (key, number) = (format!("k{key}"), seen.next);
                    let got = catalog.swap(&key, now, || number);
                    seen.asked(got, key)?;
                }
                Event::Release(at) if !seen.held.is_empty() => {
                    let (key, version) = seen.held.swap_remove(at % seen.held.len());
                    catalog.release(&key, version);
                }
                Event::End(at, weight) if !seen.loading.is_empty() => {
                    let key = seen.loading.swap_remove(at % seen.loading.len());
                    seen.given_up.remove(&*key);
                    let (mut gone, left) = (Vec::new(), seen.left.clone());
                    let of_key = 7 * key.bytes().last().map_or(0, |digit| u64::from(digit - b'0')) + 3;
                    let weight = weight.map(|weight| match weights {
                        Weights::Unknown => of_key,
                        Weights::Right => 10,
                        Weights::Wrong => weight,
                    });
                    let ended = match weight {
                        Some(weight) => {
                            catalog.loaded(&key, weight, weight, now, |waiter| left.contains(waiter), &mut gone)
                        }
                        None => catalog.failed(&key, MakeError::new("away"), now),
                    };
                    seen.ended(&key, ended.expect("it was loading"));
                }
                Event::Leave(at) if !seen.waiting.is_empty() => {
                    let number = *seen.waiting.keys().nth(at % seen.waiting.len()).unwrap();
                    seen.left.push(number);
                    let key = seen.waiting[&number].clone();
                    for waiter in catalog.forget_left(&key, |waiter| seen.left.contains(waiter)) {
                        prop_assert!(seen.waiting.remove(&waiter).is_some());
                    }
                    prop_assert!(!seen.waiting.contains_key(&number), "a caller that has left waits no longer");
                }
                Event::Unload(key) => {
                    let key = format!("k{key}");
                    let (unloaded, waiters) = catalog.unload(&key).unwrap_or_default();
                    if seen.loading.iter().any(|loading| **loading == *key) {
                        seen.given_up.insert(key.clone());
                    }
                    seen.held.extend(unloaded.map(|(_, version)| (key.clone(), version)));
                    for waiter in waiters {
                        prop_assert!(seen.waiting.remove(&waiter).is_some_and(|of| of == key));
                    }
                }
                _ => {}
            }
            loop {
                let (begun, freed) = begin(&mut catalog, now, &seen.left, known);
                for waiter in freed.left {
                    prop_assert!(seen.waiting.remove(&waiter).is_some());
                }
                for (key, loaded) in freed.ended {
                    seen.ended(&key, loaded);
                }
                let Some(key) = begun else { break };
                prop_assert!(!seen.loading.contains(&key), "one load of a key at a time");
                seen.loading.push(key);
            }
            let stats = catalog.stats("");
            prop_assert!(seen.loading.len() - seen.given_up.len() <= loading);
            seen.largest = stats.loaded.iter().map(|model| model.bytes).fold(seen.largest.max(10), u64::max);
            // Estimates that are wrong may be wrong for several loads at once.
            if weights != Weights::Wrong || loading == 1 {
                let exceeding = 1 + seen.given_up.len() as u64;
                prop_assert!(stats.bytes <= 100 + exceeding * seen.largest, "{stats:?}");
            }
            let held: usize = stats.loaded.iter().map(|model| model.held).sum();
            prop_assert!(held <= seen.held.len());
        }
        // When everybody has left, every load ends and every model can go.
        seen.left = (0..seen.next).collect();
        for key in 0..8 {
            for waiter in catalog.forget_left(&format!("k{key}"), |_waiter| true) {
                prop_assert!(seen.waiting.remove(&waiter).is_some());
            }
        }
        for key in std::mem::take(&mut seen.loading) {
            let ended = catalog.failed(&key, MakeError::new("away"), now);
            seen.ended(&key, ended.expect("it was loading"));
        }
        let (begun, freed) = begin(&mut catalog, now, &seen.left, known);
        prop_assert!(begun.is_none());
        for waiter in freed.left {
            prop_assert!(seen.waiting.remove(&waiter).is_some());
        }
        prop_assert!(seen.waiting.is_empty(), "{:?}", seen.waiting);
        for (key, version) in std::mem::take(&mut seen.held) {
            catalog.release(&key, version);
        }
        for key in (0..8).map(|key| format!("k{key}")) {
            if let Some((Some((_, version)), _)) = catalog.unload(&key) {
                catalog.release(&key, version);
            }
        }
        let stats = catalog.stats("");
        prop_assert_eq!((stats.bytes, stats.leaving, stats.loaded.len(), stats.loading.len()), (0, 0, 0, 0));
    }
}
