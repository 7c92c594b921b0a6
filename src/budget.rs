//! `Budget`: how many bytes of request bodies may be in memory at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// How many bytes of request bodies may be in memory at once, in all places that share this budget.
///
/// The pools of one [`Pools`](crate::Pools) have a budget for the bodies that
/// [`PoolLayer::read_body`](crate::PoolLayer::read_body) reads. A [`ReadBody`](crate::body::ReadBody) that stands alone has
/// none unless it is given one. Clones are the same budget.
///
/// ```
/// use tower_offload::body::{Budget, ReadBody};
///
/// let budget = Budget::new(64 << 20);
/// let read_body = ReadBody::new(1 << 20).budget(&budget);
/// assert_eq!((budget.limit(), budget.in_use()), (64 << 20, 0));
/// # let _ = read_body;
/// ```
#[derive(Clone, Debug)]
pub struct Budget(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    limit: usize,
    in_use: AtomicUsize,
}

/// A part of a budget. Its drop gives the part back.
#[derive(Debug, Default)]
pub(crate) struct Reservation {
    /// `None`: there is no budget, and everything fits.
    budget: Option<Budget>,
    bytes: usize,
}

impl Budget {
    /// A budget of this many bytes.
    #[must_use]
    pub fn new(bytes: usize) -> Self {
        Self(Arc::new(Shared { limit: bytes, in_use: AtomicUsize::new(0) }))
    }

    /// How many bytes may be in use.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.0.limit
    }

    /// How many bytes are in use now: the bodies, and the memory that their bookkeeping takes.
    #[must_use]
    pub fn in_use(&self) -> usize {
        self.0.in_use.load(Ordering::Relaxed)
    }

    fn take(&self, bytes: usize) -> bool {
        let fits = |in_use: usize| in_use.checked_add(bytes).filter(|sum| *sum <= self.0.limit);
        self.0.in_use.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok()
    }
}

impl Reservation {
    /// A reservation of nothing yet.
    pub(crate) const fn of(budget: Option<Budget>) -> Self {
        Self { budget, bytes: 0 }
    }

    /// The limit of the budget.
    pub(crate) fn limit(&self) -> Option<usize> {
        self.budget.as_ref().map(Budget::limit)
    }

    /// Reserves this many bytes in all, if they fit. A reservation that is as large already stays as it is.
    pub(crate) fn grow_to(&mut self, bytes: usize) -> bool {
        let more = bytes.saturating_sub(self.bytes);
        let fits = more == 0 || self.budget.as_ref().is_none_or(|budget| budget.take(more));
        if fits {
            self.bytes += more;
        }
        fits
    }

    /// Gives back what exceeds this many bytes.
    pub(crate) fn shrink_to(&mut self, bytes: usize) {
        let less = self.bytes.saturating_sub(bytes);
        if let (Some(budget), 1..) = (&self.budget, less) {
            budget.0.in_use.fetch_sub(less, Ordering::Relaxed);
        }
        self.bytes -= less;
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.shrink_to(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reservations_never_exceed_the_budget_and_give_back_all_of_it() {
        let budget = Budget::new(100);
        let mut one = Reservation::of(Some(budget.clone()));
        let mut two = Reservation::of(Some(budget.clone()));
        assert!(one.grow_to(60) && one.grow_to(50));
        assert_eq!(budget.in_use(), 60, "a reservation does not shrink when it is asked for less");
        assert!(!two.grow_to(41) && !two.grow_to(usize::MAX));
        assert_eq!(budget.in_use(), 60, "a refused reservation takes nothing");
        assert!(two.grow_to(40));
        one.shrink_to(10);
        assert_eq!(budget.in_use(), 50);
        drop((one, two));
        assert_eq!(budget.in_use(), 0);
    }

    #[test]
    fn threads_that_reserve_at_once_share_the_budget() {
        let budget = Budget::new(10);
        let taken: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        let all: Vec<_> = (0..100)
                            .filter_map(|_| {
                                let mut part = Reservation::of(Some(budget.clone()));
                                part.grow_to(1).then_some(part)
                            })
                            .collect();
                        assert!(budget.in_use() <= 10);
                        let taken = all.len();
                        std::mem::forget(all);
                        taken
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().expect("it does not panic")).sum()
        });
        assert_eq!((taken, budget.in_use()), (10, 10));
    }
}
