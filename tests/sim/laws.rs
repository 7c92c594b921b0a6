//! How much work a task is, and how much slower all tasks get when many run.

use crate::random::Random;

/// The work of one task, in nanoseconds that it takes alone.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Work {
    Constant(f64),
    Exponential(f64),
    /// Pareto with shape 2.1: the variance is 22 times that of an exponential of the same mean.
    HeavyTail(f64),
    /// Mostly short, some long: the share of long ones is the last number.
    Bimodal(f64, f64, f64),
}

/// The factor by which concurrency slows a task.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Crowding {
    /// Not at all: tasks that wait for something else.
    None,
    /// So many cores, shared evenly.
    Cores(f64),
    /// Tasks that get in each other's way: 1 + (n / k)², best at n = k.
    Thrash(f64),
    /// The Universal Scalability Law: contention, and coherency.
    Scalability(f64, f64),
}

impl Work {
    pub(crate) fn draw(self, random: &mut Random) -> f64 {
        match self {
            Self::Constant(mean) => mean,
            Self::Exponential(mean) => mean * random.exponential(),
            Self::HeavyTail(mean) => mean * (1.1 / 2.1) * random.fraction().powf(-1.0 / 2.1),
            Self::Bimodal(short, long, share) if random.fraction() <= share => long.max(short),
            Self::Bimodal(short, ..) => short,
        }
    }

    pub(crate) fn mean(self) -> f64 {
        match self {
            Self::Constant(mean) | Self::Exponential(mean) | Self::HeavyTail(mean) => mean,
            Self::Bimodal(short, long, share) => short + (long - short) * share,
        }
    }
}

impl Crowding {
    pub(crate) fn slowdown(self, running: usize) -> f64 {
        let n = running as f64;
        match self {
            Self::None => 1.0,
            Self::Cores(cores) => (n / cores).max(1.0),
            Self::Thrash(best) => 1.0 + (n / best).powi(2),
            Self::Scalability(contention, coherency) => 1.0 + contention * (n - 1.0) + coherency * n * (n - 1.0),
        }
    }

    /// Tasks per second of a pool that always runs this many.
    pub(crate) fn throughput(self, running: usize, work: Work) -> f64 {
        running as f64 / (work.mean() * self.slowdown(running)) * 1e9
    }
}
