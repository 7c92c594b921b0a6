//! Callers that arrive by chance, whether or not those before have an answer, and leave when they have waited too long.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;

use crate::overload::Chance;

/// An answer is good if it comes within this time; after it, the caller is gone.
pub const PATIENCE: Duration = Duration::from_millis(100);

/// Answers in it do not count.
pub const WARM_UP: Duration = Duration::from_secs(1);

/// Callers that arrive at a mean rate.
pub struct Arrivals<'a> {
    pub runtime: &'a Runtime,
    pub per_second: f64,
    pub span: Duration,
    pub seed: u64,
}

/// The fates of the callers that ended after the warm-up and before the last arrival.
pub struct Answers {
    fates: Vec<Fate>,
    pub counted_from: Instant,
    pub counted: Duration,
}

/// The outcome of one caller.
#[derive(Clone, Copy, Debug)]
struct Fate {
    due: Instant,
    ended: Instant,
    good: bool,
}

impl Answers {
    /// Milliseconds until each good answer.
    pub fn latencies(&self) -> Vec<f64> {
        let good = self.fates.iter().filter(|fate| fate.good);
        good.map(|fate| (fate.ended - fate.due).as_secs_f64() * 1e3).collect()
    }
}

impl Arrivals<'_> {
    /// `call` gets the moment at which its caller was due.
    pub fn run<F, O, E>(self, mut call: impl FnMut(Instant) -> F + Send + 'static) -> Answers
    where
        F: Future<Output = Result<O, E>> + Send + 'static,
        O: Send,
        E: Send,
    {
        let Self { runtime, per_second, span, seed } = self;
        let fates = Arc::new(Mutex::new(Vec::new()));
        let collected = fates.clone();
        let arrivals = runtime.spawn(async move {
            let begin = Instant::now();
            let (mut due, mut chance) = (begin, Chance::new(seed));
            let mut callers = tokio::task::JoinSet::new();
            while due < begin + span {
                tokio::time::sleep_until(due.into()).await;
                let (answer, collected) = (call(due), collected.clone());
                callers.spawn(async move {
                    let answered = tokio::time::timeout_at((due + PATIENCE).into(), answer).await;
                    let ended = Instant::now();
                    let good = matches!(answered, Ok(Ok(_))) && ended <= due + PATIENCE;
                    collected.lock().expect("no caller panics").push(Fate { due, ended, good });
                });
                due += Duration::from_secs_f64(chance.exponential() / per_second);
            }
            callers.join_all().await;
            begin
        });
        let begin = runtime.block_on(arrivals).expect("no caller panics");
        let (from, to) = (begin + WARM_UP, begin + span);
        let fates = fates.lock().expect("no caller panics");
        let fates = fates.iter().copied().filter(|fate| (from..to).contains(&fate.ended)).collect();
        Answers { fates, counted_from: from, counted: span - WARM_UP }
    }
}
