//! The messages between the pools and the budget of cores, delivered in any order.

use proptest::prelude::*;

use crate::admission::Timestamp;
use crate::cores::allotment::MemberId;
use crate::cores::core_budget::{CoreBudget, TICK};
use crate::cores::{Allot, AwakeLimit, Report, Sampled};

const WORKERS: usize = 8;

/// A pool whose tasks compute.
struct Pool {
    member: MemberId,
    limit: AwakeLimit,
    awake: usize,
    waiting: usize,
}

enum Message {
    Report(MemberId, Report),
    Allot(Allot),
}

struct System {
    budget: CoreBudget,
    pools: Vec<Pool>,
    /// Messages that were sent and not yet delivered.
    messages: Vec<Message>,
    now: Timestamp,
}

impl System {
    fn new(cores: usize, pools: usize) -> Self {
        let mut budget = CoreBudget::new(cores);
        let pool = |_| {
            let mut limit = AwakeLimit::new(WORKERS);
            let computes = Sampled { runnable: true, since: None };
            limit.observe(Timestamp::default(), &[computes], 1, 1, 1);
            Pool { member: budget.add(1), limit, awake: 0, waiting: 0 }
        };
        let pools = (0..pools).map(pool).collect();
        Self { budget, pools, messages: Vec::new(), now: Timestamp::default() }
    }

    fn event(&mut self, kind: u8, index: prop::sample::Index) {
        let at = index.index(self.pools.len());
        let pool = &mut self.pools[at];
        match kind {
            0 => pool.waiting += 1,
            1 if pool.awake < pool.limit.current() && pool.waiting > 0 => {
                pool.awake += 1;
                pool.waiting -= 1;
            }
            2 if pool.awake > 0 => {
                let parks = pool.awake > pool.limit.current() || pool.waiting == 0;
                if parks {
                    pool.awake -= 1;
                } else {
                    pool.waiting -= 1;
                }
            }
            3 => self.now = self.now + TICK,
            4 => self.tick(),
            _ if !self.messages.is_empty() => {
                let message = self.messages.swap_remove(index.index(self.messages.len()));
                self.deliver(message);
            }
            _ => {}
        }
        self.report(at);
    }

    fn tick(&mut self) {
        let status = |pool: &mut Pool| (pool.member, pool.limit.status(pool.awake, pool.waiting));
        let reports: Vec<_> = self.pools.iter_mut().map(status).collect();
        let allots = self.budget.tick(&reports, self.now);
        self.messages.extend(allots.into_iter().map(Message::Allot));
    }

    fn deliver(&mut self, message: Message) {
        match message {
            Message::Report(member, report) => {
                let allots = self.budget.report(member, report, self.now);
                self.messages.extend(allots.into_iter().map(Message::Allot));
            }
            Message::Allot(allot) => {
                let pool = self.pools.iter_mut().find(|pool| pool.member == allot.member).expect("none is removed");
                let report = pool.limit.apply(allot, pool.awake, pool.waiting);
                self.messages.extend(report.map(|report| Message::Report(allot.member, report)));
            }
        }
    }

    fn report(&mut self, at: usize) {
        let pool = &mut self.pools[at];
        if let Some(report) = pool.limit.report(pool.awake, pool.waiting) {
            self.messages.push(Message::Report(pool.member, report));
        }
    }

    fn held(&self) -> usize {
        self.pools.iter().map(|pool| pool.limit.held()).sum()
    }

    /// Lets workers start and park, and delivers every message, until there is no more to do.
    fn settle(&mut self) {
        for _ in 0..20 {
            if self.budget.is_contended() {
                self.now = self.now + TICK;
                self.tick();
            }
            for _ in 0..10 {
                while let Some(message) = self.messages.pop() {
                    self.deliver(message);
                }
                for at in 0..self.pools.len() {
                    let pool = &mut self.pools[at];
                    let started = pool.limit.current().saturating_sub(pool.awake).min(pool.waiting);
                    pool.awake = (pool.awake + started).min(pool.limit.current());
                    pool.waiting -= started;
                    self.report(at);
                }
            }
        }
    }
}

/// Any order of the events of a system, each with the pool or the message that it concerns.
fn events() -> impl Strategy<Value = Vec<(u8, prop::sample::Index)>> {
    proptest::collection::vec((0..8_u8, any::<prop::sample::Index>()), 0..300)
}

proptest! {
    /// Each pool's own count of its cores is the truth. However late a message comes, and whichever overtook it, the
    /// counts never exceed the cores, and no worker computes without one.
    #[test]
    fn no_core_is_used_twice_in_any_order_of_the_messages(
        cores in 1..5_usize,
        pools in 1..5_usize,
        events in events(),
    ) {
        let mut system = System::new(cores, pools);
        for (kind, index) in events {
            system.event(kind, index);
            prop_assert!(system.held() <= cores, "{} of {cores} cores", system.held());
            for pool in &system.pools {
                prop_assert!(pool.awake <= pool.limit.held(), "{} on {} cores", pool.awake, pool.limit.held());
            }
        }
    }

    /// When all messages have come, no core is left idle while a task waits.
    #[test]
    fn no_core_is_lost_in_any_order_of_the_messages(
        cores in 1..5_usize,
        pools in 1..5_usize,
        events in events(),
    ) {
        let mut system = System::new(cores, pools);
        for (kind, index) in events {
            system.event(kind, index);
        }
        system.settle();
        let could_run: usize = system.pools.iter().map(|pool| (pool.awake + pool.waiting).min(WORKERS)).sum();
        let awake: usize = system.pools.iter().map(|pool| pool.awake).sum();
        prop_assert_eq!(awake, could_run.min(cores));
    }
}
