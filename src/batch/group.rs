//! Groups: only items of one group share a batch. A group is known by a number, and learns how long its batches take.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use crate::admission::{BatchTime, Prediction, Timestamp};
use crate::sync::lock_std as lock;

/// A group of items, as long as there are items of it.
#[derive(Debug)]
pub(super) struct Group {
    number: u64,
    time: Mutex<BatchTime>,
}

/// The groups of a function, by key.
#[derive(Debug)]
pub(super) struct Groups<K> {
    known: Mutex<Known<K>>,
}

#[derive(Debug)]
struct Known<K> {
    groups: HashMap<K, Weak<Group>>,
    /// Groups without items are removed when so many are known.
    clean_at: usize,
}

const CLEAN_AT: usize = 64;

impl Group {
    pub(super) fn new() -> Arc<Self> {
        // Numbers are never used again, so items of different functions are never of one group.
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Arc::new(Self { number: NEXT.fetch_add(1, Relaxed), time: Mutex::default() })
    }

    pub(super) const fn number(&self) -> u64 {
        self.number
    }

    pub(super) fn prediction(&self, now: Timestamp) -> Option<Prediction> {
        lock(&self.time).predict(now)
    }

    /// Notes how long a batch of this weight took.
    pub(super) fn batch_ended(&self, now: Timestamp, weight: u64, took: Duration) {
        lock(&self.time).add(now, weight, took);
    }
}

impl<K: Eq + Hash> Groups<K> {
    pub(super) fn new() -> Self {
        Self { known: Mutex::new(Known { groups: HashMap::new(), clean_at: CLEAN_AT }) }
    }

    pub(super) fn of(&self, key: K) -> Arc<Group> {
        let mut known = lock(&self.known);
        if let Some(group) = known.groups.get(&key).and_then(Weak::upgrade) {
            return group;
        }
        if known.groups.len() >= known.clean_at {
            known.groups.retain(|_, group| group.strong_count() > 0);
            known.clean_at = CLEAN_AT.max(known.groups.len() * 2);
        }
        let group = Group::new();
        known.groups.insert(key, Arc::downgrade(&group));
        group
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_lasts_as_long_as_its_items_and_takes_no_memory_afterwards() {
        let groups = Groups::new();
        let kept = groups.of(0);
        for key in 1..10_000 {
            groups.of(key);
        }
        assert_eq!(groups.of(0).number(), kept.number());
        assert_ne!(groups.of(1).number(), kept.number());
        assert!(lock(&groups.known).groups.len() <= CLEAN_AT);
    }
}
