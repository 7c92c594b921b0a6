//! Random scripts against a model: after every step the pool's numbers are the model's.

use std::collections::VecDeque;

use proptest::prelude::*;
use tokio::sync::oneshot;
use tower_offload::TaskHandle;
use tower_offload::{PoolConfig, Pools, Reason, TaskError};

use crate::support::{check_numbers, end_of, pools, stats, until};

#[derive(Clone, Copy, Debug)]
enum Step {
    Submit,
    /// The task in flight with this index, modulo their number, ends like this.
    End(usize, Ending),
    LeaveQueued(usize),
    LeaveInFlight(usize),
    Drain,
}

#[derive(Clone, Copy, Debug)]
enum Ending {
    Value,
    Panic,
}

struct Running {
    handle: TaskHandle<u8>,
    end: oneshot::Sender<Ending>,
}

/// The expected state of the pool.
struct Model {
    limit: usize,
    capacity: usize,
    in_flight: Vec<Running>,
    queued: VecDeque<Running>,
    left: Vec<oneshot::Sender<Ending>>,
    draining: bool,
    ok: u64,
    panicked: u64,
    cancelled: u64,
    rejected: u64,
}

impl Model {
    fn step(&mut self, pools: &Pools, step: Step) {
        match step {
            Step::Submit => self.submit(pools),
            Step::End(place, ending) if !self.in_flight.is_empty() => {
                let Running { handle, end } = self.in_flight.remove(place % self.in_flight.len());
                end.send(ending).expect("the task awaits this");
                self.check_end(end_of(handle), ending);
                self.promote();
            }
            Step::LeaveQueued(place) if !self.queued.is_empty() => {
                let left = self.queued.remove(place % self.queued.len()).expect("it is in range");
                left.handle.cancel();
                self.cancelled += 1;
            }
            Step::LeaveInFlight(place) if !self.in_flight.is_empty() => {
                let left = self.in_flight.remove(place % self.in_flight.len());
                left.handle.cancel();
                // The sender is kept: a poll that is under way must not find the channel closed.
                self.left.push(left.end);
                self.cancelled += 1;
                self.promote();
            }
            Step::Drain => {
                // Its first poll begins the drain. Then it is dropped.
                let mut shutdown = tokio_test::task::spawn(pools.shutdown(std::time::Duration::from_secs(600)));
                self.draining = true;
                assert_eq!(shutdown.poll().is_ready(), self.in_flight.is_empty());
            }
            _ => {}
        }
    }

    fn submit(&mut self, pools: &Pools) {
        let (end, ended) = oneshot::channel();
        let task = async move {
            match ended.await.expect("the script ends every task or leaves it") {
                Ending::Value => 1,
                Ending::Panic => std::panic::resume_unwind(Box::new("by the script")),
            }
        };
        let fits = self.in_flight.len() < self.limit || self.queued.len() < self.capacity;
        match pools.submit_to_pool("script", task) {
            Ok(handle) => {
                assert!(fits && !self.draining, "a task was admitted that should not have been");
                self.queued.push_back(Running { handle, end });
                self.promote();
            }
            Err(error) => {
                let TaskError::Rejected(rejection) = error else { panic!("{error}") };
                assert_eq!(rejection.reason(), if self.draining { Reason::Draining } else { Reason::QueueFull });
                assert!(self.draining || !fits, "a task was refused that had a place");
                self.rejected += 1;
            }
        }
    }

    fn promote(&mut self) {
        while self.in_flight.len() < self.limit
            && let Some(next) = self.queued.pop_front()
        {
            self.in_flight.push(next);
        }
    }

    fn check_end(&mut self, result: Result<u8, TaskError>, ending: Ending) {
        match ending {
            Ending::Value => {
                assert_eq!(result.unwrap(), 1);
                self.ok += 1;
            }
            Ending::Panic => {
                assert!(result.unwrap_err().is_panic());
                self.panicked += 1;
            }
        }
    }

    fn agrees_with(&self, pools: &Pools) -> bool {
        let stats = stats(pools, "script");
        check_numbers(&stats);
        let counts = stats.counts;
        (stats.in_flight, stats.queued_tasks) == (self.in_flight.len(), self.queued.len())
            && (counts.ok, counts.panicked) == (self.ok, self.panicked)
            && (counts.cancelled, counts.rejected) == (self.cancelled, self.rejected)
    }
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        60 => Just(Step::Submit),
        25 => (any::<usize>(), prop_oneof![3 => Just(Ending::Value), 1 => Just(Ending::Panic)])
            .prop_map(|(place, ending)| Step::End(place, ending)),
        10 => any::<usize>().prop_map(Step::LeaveQueued),
        10 => any::<usize>().prop_map(Step::LeaveInFlight),
        1 => Just(Step::Drain),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_script_leaves_the_numbers_of_its_model(
        workers in 1..4_usize,
        limit in 1..6_usize,
        capacity in 0..6_usize,
        steps in proptest::collection::vec(step(), 1..80),
    ) {
        let pools = pools("script", PoolConfig::new(workers).concurrency(limit).queue_capacity(capacity));
        let mut model = Model {
            limit, capacity, in_flight: Vec::new(), queued: VecDeque::new(), left: Vec::new(), draining: false,
            ok: 0, panicked: 0, cancelled: 0, rejected: 0,
        };
        for step in steps {
            model.step(&pools, step);
            // A worker drops the future of a task that was cancelled in flight, so the numbers may lag.
            until("the numbers are the model's", || model.agrees_with(&pools));
        }
        while !model.in_flight.is_empty() {
            model.step(&pools, Step::End(0, Ending::Value));
        }
        until("the numbers are the model's", || model.agrees_with(&pools));
        prop_assert_eq!(stats(&pools, "script").counts.ended(), stats(&pools, "script").counts.submitted);
    }
}
