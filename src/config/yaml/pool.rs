//! Reads the settings of one pool in their long form.

use super::hints;
use super::read::{Entry, Reader};
use super::tree::Data;
use super::values::{self, bytes, flag, header, nice, share, size, time, word, workers};
use crate::config::batch::BatchSettings;
use crate::config::body::{BodyPolicy, OnDrain, RunBody};
use crate::config::byte_size;
use crate::config::overload::{Concurrency, Queue, QueueTarget, check_limits, check_targets};
use crate::config::pool::{PoolConfig, Workers};
use crate::config::rules;
use crate::config::trust::{Malformed, Trust};

const QUEUES: [(&str, Queue); 2] = [("fifo", Queue::Fifo), ("adaptive", Queue::Adaptive)];

const MALFORMED: [(&str, Malformed); 2] = [("ignore", Malformed::Ignore), ("reject", Malformed::Reject)];

const RUN_BODY: [(&str, RunBody); 2] = [("connection", RunBody::Connection), ("pool", RunBody::Pool)];

const ON_DRAIN: [(&str, OnDrain); 2] = [("finish", OnDrain::Finish), ("end", OnDrain::End)];

impl Reader {
    pub(super) fn pool(&mut self, section: &Entry<'_>, pool: &mut PoolConfig, built_in: bool) {
        let mut counted = built_in;
        let mut concurrency = None;
        for entry in self.section(section) {
            match entry.name {
                "workers" => {
                    counted = true;
                    self.take(&entry, |data| workers(data, &rules::WORKERS), &mut pool.workers);
                }
                "concurrency" => concurrency = Some(entry),
                "queue_capacity" => {
                    self.take(&entry, |data| size(data, &rules::QUEUE_CAPACITY), &mut pool.queue_capacity);
                }
                "queue_timeout" => self.take(&entry, time, &mut pool.queue_timeout),
                "queue" => self.take(&entry, |data| word(data, &QUEUES), &mut pool.queue),
                "queue_target" => self.queue_target(&entry, &mut pool.queue_target),
                "keep_alive" => self.take(&entry, time, &mut pool.keep_alive),
                "share" => self.take(&entry, share, &mut pool.share),
                "stack_size" => {
                    self.take(&entry, |data| bytes(data, &byte_size::STACK).map(Some), &mut pool.stack_size);
                }
                "nice" => self.take(&entry, |data| nice(data).map(Some), &mut pool.nice),
                "trust" => self.trust(&entry, pool.trust.get_or_insert_default()),
                "batch" => self.batch(&entry, &mut pool.batch),
                "body" => self.body(&entry, &mut pool.body),
                "max_streams" => self.take(&entry, |data| size(data, &rules::MAX_STREAMS), &mut pool.max_streams),
                _ => self.unknown(&entry, hints::POOL),
            }
        }
        if !counted {
            let message = match hints::built_in_meant_by(section.name) {
                Some(meant) => format!("there is no pool of this name; did you mean `{meant}`?"),
                None => format!("a pool that is not built in needs `workers`; {}", rules::WORKERS.remedy()),
            };
            self.note(section.key.at, &section.path, message);
        }
        // Read last, because its default bounds depend on `workers`, which may be below it in the file.
        if let Some(entry) = concurrency {
            self.concurrency(&entry, pool.workers, &mut pool.concurrency);
        }
    }

    fn concurrency(&mut self, entry: &Entry<'_>, workers: Workers, target: &mut Concurrency) {
        let (mut min, mut max) = Concurrency::default_bounds(workers.count());
        if matches!(entry.value.data, Data::Mapping(_)) {
            let bound = |data: &Data| size(data, &rules::CONCURRENCY_BOUND);
            self.bounds(entry, bound, check_limits, &mut min, &mut max);
            *target = Concurrency::Adaptive { min, max };
        } else {
            self.take(entry, |data| values::concurrency(data, Concurrency::Adaptive { min, max }), target);
        }
    }

    fn queue_target(&mut self, entry: &Entry<'_>, target: &mut QueueTarget) {
        if matches!(entry.value.data, Data::Mapping(_)) {
            self.bounds(entry, time, check_targets, &mut target.min, &mut target.max);
        } else {
            self.take(entry, |data| time(data).map(|both| QueueTarget::from(both..=both)), target);
        }
    }

    /// Reads two bounds and checks their order.
    fn bounds<T: Copy>(
        &mut self,
        section: &Entry<'_>,
        read: impl Fn(&Data) -> Result<T, String>,
        check: impl FnOnce(T, T) -> Result<(), String>,
        min: &mut T,
        max: &mut T,
    ) {
        let before = self.mistakes.len();
        for entry in self.section(section) {
            match entry.name {
                "min" => self.take(&entry, &read, min),
                "max" => self.take(&entry, &read, max),
                _ => self.unknown(&entry, &["min", "max"]),
            }
        }
        // If a bound could not be read, there is no order to check.
        if let (true, Err(message)) = (self.mistakes.len() == before, check(*min, *max)) {
            self.note(section.at(), &section.path, message);
        }
    }

    fn batch(&mut self, section: &Entry<'_>, batch: &mut BatchSettings) {
        for entry in self.section(section) {
            match entry.name {
                "max_items" => {
                    self.take(&entry, |data| size(data, &rules::BATCH_ITEMS).map(Some), &mut batch.max_items);
                }
                "max_weight" => {
                    let weight = |data: &Data| size(data, &rules::BATCH_WEIGHT).map(|weight| Some(weight as u64));
                    self.take(&entry, weight, &mut batch.max_weight);
                }
                _ => self.unknown(&entry, hints::BATCH),
            }
        }
    }

    fn body(&mut self, section: &Entry<'_>, body: &mut BodyPolicy) {
        for entry in self.section(section) {
            match entry.name {
                "run" => self.take(&entry, |data| word(data, &RUN_BODY), &mut body.run),
                "hold" => self.take(&entry, flag, &mut body.hold),
                "buffer" => self.take(&entry, |data| bytes(data, &byte_size::BUFFER), &mut body.buffer),
                "stall_timeout" => self.take(&entry, time, &mut body.stall_timeout),
                "on_drain" => self.take(&entry, |data| word(data, &ON_DRAIN), &mut body.on_drain),
                _ => self.unknown(&entry, hints::BODY),
            }
        }
    }

    pub(super) fn trust(&mut self, section: &Entry<'_>, trust: &mut Trust) {
        let entries = self.section(section);
        for entry in &entries {
            match entry.name {
                "deadline" => self.take(entry, |data| header(data).map(Some), &mut trust.deadline),
                "grpc_timeout" => self.take(entry, flag, &mut trust.grpc_timeout),
                "priority" => self.take(entry, |data| header(data).map(Some), &mut trust.priority),
                "malformed" => self.take(entry, |data| word(data, &MALFORMED), &mut trust.malformed),
                _ => self.unknown(entry, hints::TRUST),
            }
        }
        for (field, message) in trust.faults() {
            if let Some(entry) = entries.iter().find(|entry| entry.name == field) {
                self.note(entry.at(), &entry.path, message);
            }
        }
    }
}
