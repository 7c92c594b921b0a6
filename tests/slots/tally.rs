//! Values that count themselves.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// Counts the values that were made, those that live, and how many lived at once.
#[derive(Clone, Default)]
pub(crate) struct Tally(Arc<Counts>);

#[derive(Default)]
struct Counts {
    made: AtomicUsize,
    live: AtomicUsize,
    peak: AtomicUsize,
    /// The names of the threads that dropped values.
    dropped_by: Mutex<Vec<String>>,
}

/// A value with a number: the first one that is made is 1.
pub(crate) struct Value {
    pub(crate) number: usize,
    pub(crate) version: u32,
    pub(crate) uses: usize,
    tally: Tally,
}

impl Tally {
    /// A value of a version. It counts as living from here on.
    pub(crate) fn make(&self, version: u32) -> Value {
        let number = self.0.made.fetch_add(1, Ordering::SeqCst) + 1;
        let live = self.0.live.fetch_add(1, Ordering::SeqCst) + 1;
        self.0.peak.fetch_max(live, Ordering::SeqCst);
        Value { number, version, uses: 0, tally: self.clone() }
    }

    pub(crate) fn made(&self) -> usize {
        self.0.made.load(Ordering::SeqCst)
    }

    pub(crate) fn live(&self) -> usize {
        self.0.live.load(Ordering::SeqCst)
    }

    pub(crate) fn peak(&self) -> usize {
        self.0.peak.load(Ordering::SeqCst)
    }

    pub(crate) fn dropped_by(&self) -> Vec<String> {
        self.0.dropped_by.lock().unwrap().clone()
    }
}

impl Drop for Value {
    fn drop(&mut self) {
        let name = std::thread::current().name().unwrap_or("none").to_owned();
        self.tally.0.dropped_by.lock().unwrap().push(name);
        self.tally.0.live.fetch_sub(1, Ordering::SeqCst);
    }
}
