//! The result of a run, and how it is printed.

use tower_offload::admission::Priority;

use crate::world::{SECOND, Stream, World};

#[derive(Clone, Debug)]
pub(crate) struct Score {
    pub(crate) events: u64,
    /// By level.
    pub(crate) levels: [Tally; 4],
    /// By caller, where streams have one.
    pub(crate) callers: Vec<(u64, Tally)>,
    /// When each answer in time or too late came, from when it was scheduled.
    latencies: Vec<(u64, u64)>,
    /// Time times limit, and the limits in order.
    area: f64,
    pub(crate) limits: Vec<(u64, usize)>,
    from: u64,
    until: u64,
    patience: u64,
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) asked: u64,
    pub(crate) good: u64,
    pub(crate) late: u64,
    pub(crate) rejected: u64,
    pub(crate) gave_up: u64,
}

impl Score {
    pub(crate) fn new(world: &World) -> Self {
        let callers = world.streams.iter().filter_map(|stream| stream.caller).map(|caller| (caller, Tally::default()));
        Self {
            events: 0,
            levels: [Tally::default(); 4],
            callers: callers.collect(),
            latencies: Vec::new(),
            area: 0.0,
            limits: Vec::new(),
            from: world.warm_up as u64,
            until: world.horizon as u64,
            patience: world.patience as u64,
        }
    }

    fn count(&mut self, kind: &Stream, scheduled: u64, add: impl Fn(&mut Tally)) {
        if scheduled < self.from || scheduled > self.until {
            return;
        }
        add(&mut self.levels[kind.level as usize]);
        if let Some(caller) = kind.caller
            && let Some((_, tally)) = self.callers.iter_mut().find(|(key, _)| *key == caller)
        {
            add(tally);
        }
    }

    pub(crate) fn asked(&mut self, kind: &Stream, scheduled: u64) {
        self.count(kind, scheduled, |tally| tally.asked += 1);
    }

    pub(crate) fn rejected(&mut self, kind: &Stream, scheduled: u64) {
        self.count(kind, scheduled, |tally| tally.rejected += 1);
    }

    pub(crate) fn gave_up(&mut self, kind: &Stream, scheduled: u64, now: u64) {
        // Later than every answer in time.
        self.latencies.push((scheduled, now - scheduled + 1));
        self.count(kind, scheduled, |tally| tally.gave_up += 1);
    }

    pub(crate) fn served(&mut self, kind: &Stream, scheduled: u64, now: u64) {
        let latency = now - scheduled;
        let good = latency <= self.patience;
        self.latencies.push((scheduled, latency));
        self.count(kind, scheduled, |tally| *if good { &mut tally.good } else { &mut tally.late } += 1);
    }

    pub(crate) fn limit(&mut self, now: u64, limit: usize, passed: u64) {
        if now > self.from {
            self.area += limit as f64 * passed as f64;
        }
        if self.limits.last().is_none_or(|&(_, last)| last != limit) {
            self.limits.push((now, limit));
        }
    }

    pub(crate) fn total(&self) -> Tally {
        self.levels.iter().fold(Tally::default(), |sum, next| Tally {
            asked: sum.asked + next.asked,
            good: sum.good + next.good,
            late: sum.late + next.late,
            rejected: sum.rejected + next.rejected,
            gave_up: sum.gave_up + next.gave_up,
        })
    }

    /// Answers in time a second.
    pub(crate) fn goodput(&self) -> f64 {
        self.total().good as f64 * SECOND / (self.until - self.from) as f64
    }

    /// The latency that this share of the requests stayed within, rejected ones left out.
    pub(crate) fn percentile(&self, share: f64) -> f64 {
        self.percentile_within(share, self.from, self.until)
    }

    /// How long after `at` the last of the spans of `step` begins in which one in a hundred waited too long.
    pub(crate) fn recovery(&self, at: f64, step: f64) -> f64 {
        let mut recovered = 0.0;
        let mut from = at;
        while from + step < self.until as f64 {
            if self.percentile_within(0.99, from as u64, (from + step) as u64) > self.patience as f64 {
                recovered = from + step - at;
            }
            from += step;
        }
        recovered
    }

    /// The same for the arrivals of this span.
    pub(crate) fn percentile_within(&self, share: f64, from: u64, until: u64) -> f64 {
        let within = self.latencies.iter().filter(|(at, _)| (from..=until).contains(at));
        let mut latencies: Vec<u64> = within.map(|&(_, latency)| latency).collect();
        latencies.sort_unstable();
        let at = (latencies.len() as f64 * share) as usize;
        latencies.get(at.min(latencies.len().saturating_sub(1))).map_or(0.0, |&latency| latency as f64)
    }

    pub(crate) fn mean_limit(&self) -> f64 {
        self.area / (self.until - self.from) as f64
    }

    /// How often the limit turned round by more than this share of itself.
    pub(crate) fn reversals(&self, hysteresis: f64) -> usize {
        let mut limits = self.limits.iter().filter(|(at, _)| *at >= self.from).map(|&(_, limit)| limit as f64);
        let Some(mut extreme) = limits.next() else { return 0 };
        let (mut upward, mut turns) = (None, 0);
        for limit in limits {
            let (rose, fell) = (limit > extreme * (1.0 + hysteresis), limit < extreme / (1.0 + hysteresis));
            match upward {
                Some(true) if limit > extreme => extreme = limit,
                Some(false) if limit < extreme => extreme = limit,
                Some(true) if fell => (upward, extreme, turns) = (Some(false), limit, turns + 1),
                Some(false) if rose => (upward, extreme, turns) = (Some(true), limit, turns + 1),
                None if rose || fell => (upward, extreme) = (Some(rose), limit),
                _ => {}
            }
        }
        turns
    }
}

/// Normal and higher.
pub(crate) fn important(score: &Score) -> Tally {
    let mut tally = Tally::default();
    for level in [Priority::Critical, Priority::High, Priority::Normal] {
        let one = score.levels[level as usize];
        tally.asked += one.asked;
        tally.good += one.good;
    }
    tally
}

impl Tally {
    pub(crate) fn share(self) -> f64 {
        self.good as f64 / self.asked.max(1) as f64
    }
}
