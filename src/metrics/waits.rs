//! How long tasks waited, counted by length in one histogram for each worker.
//!
//! Only its worker writes a histogram, so counting a wait is a load and a store of a cache line that no other thread
//! writes: about two nanoseconds, and no contention. A reader adds the histograms up.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::sync::lock_std as lock;

/// Each power of two has this many buckets, as a power of two. A quantile is right within 6%.
const SUB_BITS: u32 = 3;

/// The powers of two between the first bucket, of waits below a microsecond, and the last one, of more than two minutes.
const FIRST_BIT: u32 = 10;
const LAST_BIT: u32 = 37;

const BUCKETS: usize = ((LAST_BIT - FIRST_BIT) << SUB_BITS) as usize + 2;

/// The waits of all tasks of a pool that have begun.
#[derive(Default)]
pub(crate) struct Waits(Mutex<Workers>);

/// The histogram of one worker.
pub(crate) struct Histogram([AtomicU64; BUCKETS]);

#[derive(Default)]
struct Workers {
    present: Vec<Arc<Histogram>>,
    /// The sum of the workers that have ended.
    ended: WaitCounts,
}

/// The number of waits in each bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WaitCounts([u64; BUCKETS]);

impl Waits {
    /// The histogram of a worker that begins.
    pub(crate) fn join(&self) -> Arc<Histogram> {
        let mut workers = lock(&self.0);
        workers.fold_ended();
        let histogram = Arc::<Histogram>::default();
        workers.present.push(histogram.clone());
        histogram
    }

    /// The waits so far.
    #[cfg(any(feature = "dashboard", test))]
    pub(crate) fn total(&self) -> WaitCounts {
        let mut workers = lock(&self.0);
        workers.fold_ended();
        let mut total = workers.ended.clone();
        workers.present.iter().for_each(|histogram| total.add(histogram));
        total
    }
}

impl Workers {
    /// A histogram without a worker has its last count.
    fn fold_ended(&mut self) {
        let Self { present, ended } = self;
        present.retain_mut(|histogram| match Arc::get_mut(histogram) {
            Some(histogram) => {
                ended.add(histogram);
                false
            }
            None => true,
        });
    }
}

impl Histogram {
    /// Called by the histogram's worker alone.
    pub(crate) fn count(&self, waited: Duration) {
        let bucket = &self.0[bucket_of(waited)];
        bucket.store(bucket.load(Relaxed) + 1, Relaxed);
    }
}

impl Default for Histogram {
    fn default() -> Self {
        Self([const { AtomicU64::new(0) }; BUCKETS])
    }
}

// === impl WaitCounts ===

impl WaitCounts {
    fn add(&mut self, histogram: &Histogram) {
        self.0.iter_mut().zip(&histogram.0).for_each(|(sum, count)| *sum += count.load(Relaxed));
    }
}

#[cfg(any(feature = "dashboard", test))]
impl WaitCounts {
    /// The waits that came after `earlier`.
    pub(crate) fn since(&self, earlier: &Self) -> Self {
        let mut counts = self.clone();
        counts.0.iter_mut().zip(earlier.0).for_each(|(count, earlier)| *count = count.saturating_sub(earlier));
        counts
    }

    /// The wait that this part of the tasks did not exceed; `None` if there were no tasks.
    pub(crate) fn quantile(&self, part: f64) -> Option<Duration> {
        let all: u64 = self.0.iter().sum();
        let rank = ((all as f64 * part).ceil() as u64).clamp(1, all.max(1));
        let mut below = 0;
        let bucket = self.0.iter().position(|count| {
            below += count;
            below >= rank
        })?;
        Some(middle_of(bucket))
    }
}

impl Default for WaitCounts {
    fn default() -> Self {
        Self([0; BUCKETS])
    }
}

/// Below the first power of two there is one bucket; each power of two has [`SUB_BITS`] bits of the number behind its
/// first one.
fn bucket_of(waited: Duration) -> usize {
    let nanos = u64::try_from(waited.as_nanos()).unwrap_or(u64::MAX);
    let Some(bit) = nanos.checked_ilog2().filter(|bit| *bit >= FIRST_BIT) else { return 0 };
    if bit >= LAST_BIT {
        return BUCKETS - 1;
    }
    let sub = (nanos >> (bit - SUB_BITS)) as usize & ((1 << SUB_BITS) - 1);
    1 + (((bit - FIRST_BIT) as usize) << SUB_BITS) + sub
}

/// The middle of a bucket; of the last one, its beginning.
#[cfg(any(feature = "dashboard", test))]
fn middle_of(bucket: usize) -> Duration {
    let Some(index) = bucket.checked_sub(1) else { return Duration::from_nanos(1 << (FIRST_BIT - 1)) };
    if bucket == BUCKETS - 1 {
        return Duration::from_nanos(1 << LAST_BIT);
    }
    let (bit, sub) = (FIRST_BIT + (index >> SUB_BITS) as u32, (index & ((1 << SUB_BITS) - 1)) as u64);
    let width = 1 << (bit - SUB_BITS);
    Duration::from_nanos((1 << bit) + sub * width + width / 2)
}

#[cfg(all(test, not(any(tower_offload_loom, tower_offload_shuttle))))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_quantile_of_equal_waits_is_that_wait_within_six_percent(nanos in 1024_u64..1 << LAST_BIT, part in 0.0..=1.0) {
            let waits = Waits::default();
            let worker = waits.join();
            (0..3).for_each(|_| worker.count(Duration::from_nanos(nanos)));
            let found = waits.total().quantile(part).expect("there are three").as_nanos() as f64;
            prop_assert!((found / nanos as f64 - 1.0).abs() <= 0.0625, "{found} for {nanos}");
        }
    }

    #[test]
    fn quantiles_are_those_of_the_sorted_waits() {
        let waits = Waits::default();
        let worker = waits.join();
        (1..=100).for_each(|millis| worker.count(Duration::from_millis(millis)));
        let near = |part: f64, millis: f64| {
            let found = waits.total().quantile(part).expect("there are a hundred").as_secs_f64() * 1000.0;
            assert!((found / millis - 1.0).abs() <= 0.0625, "{found} is not {millis}");
        };
        near(0.0, 1.0);
        near(0.5, 50.0);
        near(0.99, 99.0);
        near(1.0, 100.0);
    }

    #[test]
    fn waits_at_the_ends_of_the_range_are_counted() {
        for (waited, shown) in
            [(Duration::ZERO, Duration::from_nanos(512)), (Duration::MAX, Duration::from_nanos(1 << 37))]
        {
            let waits = Waits::default();
            waits.join().count(waited);
            assert_eq!(waits.total().quantile(0.5), Some(shown));
        }
        assert_eq!(WaitCounts::default().quantile(0.5), None);
    }

    #[test]
    fn the_waits_of_a_worker_that_has_ended_are_kept_once() {
        let waits = Waits::default();
        let (first, second) = (waits.join(), waits.join());
        first.count(Duration::from_millis(1));
        second.count(Duration::from_millis(9));
        let before = waits.total();
        drop(first);
        assert_eq!(waits.total(), before);
        assert_eq!(waits.total(), before);
        let third = waits.join();
        third.count(Duration::from_millis(9));
        let since = waits.total().since(&before);
        assert_eq!(
            (since.0.iter().sum::<u64>(), since.quantile(0.0)),
            (1, Some(middle_of(bucket_of(Duration::from_millis(9)))))
        );
    }
}
