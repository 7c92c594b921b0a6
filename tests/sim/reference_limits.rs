//! Concurrency limits of others, written from their descriptions and published constants. They set the limit of our own
//! queue, so that only the limit differs.

use std::time::Duration;

use tower_offload::admission::Timestamp;

/// A limit that follows samples of execution times.
pub(crate) trait Rule {
    fn sample(&mut self, now: Timestamp, ran: Duration, in_flight: usize, dropped: bool);
    fn limit(&self) -> usize;
}

/// Netflix Gradient2: tolerance 1.5, smoothing 0.2, queue 4, a mean over 600 samples.
pub(crate) struct Gradient2 {
    limit: f64,
    long: f64,
    samples: f64,
    bounds: (f64, f64),
}

impl Gradient2 {
    pub(crate) fn new(min: usize, max: usize) -> Self {
        Self { limit: 20_f64.min(max as f64), long: 0.0, samples: 0.0, bounds: (min as f64, max as f64) }
    }
}

impl Rule for Gradient2 {
    fn sample(&mut self, _now: Timestamp, ran: Duration, in_flight: usize, _dropped: bool) {
        let short = ran.as_secs_f64().max(1e-9);
        // The first ten samples are averaged, then an exponential mean with the weight of 600 takes over.
        self.samples += 1.0;
        let weight = if self.samples <= 10.0 { 1.0 / self.samples } else { 2.0 / 601.0 };
        self.long += (short - self.long) * weight;
        if self.long / short > 2.0 {
            self.long *= 0.95;
        }
        if (in_flight as f64) < self.limit / 2.0 {
            return;
        }
        let gradient = (1.5 * self.long / short).clamp(0.5, 1.0);
        let aim = self.limit * gradient + 4.0;
        self.limit = (0.8 * self.limit + 0.2 * aim).clamp(self.bounds.0, self.bounds.1);
    }

    fn limit(&self) -> usize {
        self.limit as usize
    }
}

/// Netflix Vegas: α = 3 log10 L, β = 6 log10 L, the best time measured anew every 30 L samples or sooner.
pub(crate) struct Vegas {
    limit: f64,
    best: f64,
    probes: f64,
    bounds: (f64, f64),
}

impl Vegas {
    pub(crate) fn new(min: usize, max: usize) -> Self {
        Self { limit: 20_f64.min(max as f64), best: 0.0, probes: 0.0, bounds: (min as f64, max as f64) }
    }
}

impl Rule for Vegas {
    fn sample(&mut self, now: Timestamp, ran: Duration, in_flight: usize, dropped: bool) {
        let rtt = ran.as_secs_f64().max(1e-9);
        self.probes += 1.0;
        // A jitter of a half to one, from the time itself.
        let jitter = 0.5 + (now.as_nanos() % 1000) as f64 / 2000.0;
        if jitter * 30.0 * self.limit <= self.probes {
            (self.probes, self.best) = (0.0, rtt);
            return;
        }
        if self.best == 0.0 || rtt < self.best {
            self.best = rtt;
            return;
        }
        let queue = (self.limit * (1.0 - self.best / rtt)).ceil();
        let step = self.limit.log10().floor().max(1.0);
        let aim = if dropped {
            self.limit - step
        } else if (in_flight * 2) < self.limit as usize {
            return;
        } else if queue <= step {
            self.limit + 6.0 * step
        } else if queue < 3.0 * step {
            self.limit + step
        } else if queue > 6.0 * step {
            self.limit - step
        } else {
            return;
        };
        self.limit = aim.clamp(self.bounds.0, self.bounds.1);
    }

    fn limit(&self) -> usize {
        self.limit as usize
    }
}

/// Envoy's gradient controller: the median of 100 ms against the least, which 50 requests at a concurrency of 3 measure
/// anew every 60 s.
pub(crate) struct Envoy {
    limit: f64,
    best: f64,
    samples: Vec<f64>,
    since: u64,
    probe: Option<f64>,
    probed: u64,
    bounds: (f64, f64),
}

impl Envoy {
    pub(crate) fn new(min: usize, max: usize) -> Self {
        let bounds = (min as f64, max as f64);
        Self { limit: 3.0, best: 0.0, samples: Vec::new(), since: 0, probe: Some(3.0), probed: 0, bounds }
    }

    fn median(&mut self) -> f64 {
        self.samples.sort_by(f64::total_cmp);
        let median = self.samples[self.samples.len() / 2];
        self.samples.clear();
        median
    }
}

impl Rule for Envoy {
    fn sample(&mut self, now: Timestamp, ran: Duration, _in_flight: usize, _dropped: bool) {
        let now = now.as_nanos();
        self.samples.push(ran.as_secs_f64().max(1e-9));
        if let Some(limit) = self.probe {
            if self.samples.len() >= 50 {
                self.best = self.median();
                (self.limit, self.probe, self.probed, self.since) = (limit, None, now, now);
            }
        } else if now - self.probed > 60_000_000_000 {
            self.probe = Some(self.limit);
            self.limit = 3.0_f64.min(self.bounds.1);
            self.samples.clear();
        } else if now - self.since > 100_000_000 {
            self.since = now;
            let gradient = (1.25 * self.best / self.median()).clamp(0.5, 2.0);
            let limit = self.limit * gradient;
            self.limit = (limit + limit.sqrt()).clamp(3.0_f64.max(self.bounds.0), self.bounds.1);
        }
    }

    fn limit(&self) -> usize {
        self.limit as usize
    }
}

/// Additive increase, multiplicative decrease: one more when in use, a tenth less when a task was in vain.
pub(crate) struct Aimd {
    limit: f64,
    bounds: (f64, f64),
}

impl Aimd {
    pub(crate) fn new(min: usize, max: usize) -> Self {
        Self { limit: 20_f64.min(max as f64), bounds: (min as f64, max as f64) }
    }
}

impl Rule for Aimd {
    fn sample(&mut self, _now: Timestamp, _ran: Duration, in_flight: usize, dropped: bool) {
        let aim = if dropped {
            self.limit * 0.9
        } else if (in_flight * 2) as f64 >= self.limit {
            self.limit + 1.0
        } else {
            return;
        };
        self.limit = aim.clamp(self.bounds.0, self.bounds.1);
    }

    fn limit(&self) -> usize {
        self.limit as usize
    }
}

/// Like Uber's Cinnamon as far as its articles tell: Vegas on the median of a window of samples against a target, which
/// is learnt anew after 30 windows; a negative covariance of in flight and throughput lowers the limit first.
pub(crate) struct Cinnamon {
    limit: f64,
    target: f64,
    samples: Vec<f64>,
    since: u64,
    in_flight: f64,
    windows: Vec<(f64, f64)>,
    bounds: (f64, f64),
}

impl Cinnamon {
    pub(crate) fn new(min: usize, max: usize) -> Self {
        let limit = 20_f64.min(max as f64);
        let bounds = (min as f64, max as f64);
        Self { limit, target: 0.0, samples: Vec::new(), since: 0, in_flight: 0.0, windows: Vec::new(), bounds }
    }

    fn covariance(&self) -> f64 {
        let n = self.windows.len() as f64;
        let (x, y) = self.windows.iter().fold((0.0, 0.0), |sum, at| (sum.0 + at.0 / n, sum.1 + at.1 / n));
        self.windows.iter().map(|at| (at.0 - x) * (at.1 - y)).sum::<f64>() / n
    }

    fn window(&mut self, now: u64) {
        self.samples.sort_by(f64::total_cmp);
        let (n, median) = (self.samples.len() as f64, self.samples[self.samples.len() / 2]);
        self.samples.clear();
        let throughput = n / (now - self.since).max(1) as f64;
        let in_flight = std::mem::take(&mut self.in_flight) / n;
        self.since = now;
        self.windows.push((in_flight, throughput));
        if self.target == 0.0 || median < self.target {
            self.target = median;
        }
        let queue = self.limit * (1.0 - self.target / median);
        let step = self.limit.log10().max(1.0);
        if queue < 3.0 * step && in_flight * 2.0 >= self.limit {
            self.limit += step;
        } else if queue > 6.0 * step {
            self.limit -= step;
        }
        if self.windows.len() >= 30 {
            if self.covariance() < 0.0 {
                self.limit *= 0.75;
            }
            self.windows.clear();
            self.target = 0.0;
        }
        self.limit = self.limit.clamp(self.bounds.0, self.bounds.1);
    }
}

impl Rule for Cinnamon {
    fn sample(&mut self, now: Timestamp, ran: Duration, in_flight: usize, _dropped: bool) {
        self.samples.push(ran.as_secs_f64().max(1e-9));
        self.in_flight += in_flight as f64;
        if self.samples.len() >= 50 {
            self.window(now.as_nanos());
        }
    }

    fn limit(&self) -> usize {
        self.limit as usize
    }
}
