//! Empty implementations for a build without the feature `metrics`.

use std::time::Duration;

use super::holdings::HoldingsReading;
use super::stats::PoolStats;
use crate::admission::Timestamp;
use crate::budget::Budget;
use crate::workload::Workload;

#[derive(Debug)]
pub(crate) struct TaskTimes;

impl TaskTimes {
    pub(crate) const fn of(_pool: &Workload) -> Self {
        Self
    }

    pub(crate) const fn record_wait(&self, _now: Timestamp, _waited: Duration) {}

    pub(crate) const fn record_run(&self, _now: Timestamp, _ran: Duration) {}

    pub(crate) const fn record_first_frame(&self, _now: Timestamp, _after: Duration) {}

    pub(crate) const fn record_frame_gap(&self, _now: Timestamp, _gap: Duration) {}

    pub(crate) const fn record_batch(&self, _now: Timestamp, _items: usize, _took: Duration) {}
}

pub(crate) const fn begin(_pool: &Workload) {}

pub(crate) const fn publish(_stats: &PoolStats) {}

pub(crate) const fn end(_stats: &PoolStats, _holdings: &HoldingsReading) {}

pub(crate) const fn publish_load(_ratio: f64) {}

pub(crate) const fn publish_holdings(_pool: &Workload, _reading: &HoldingsReading) {}

pub(crate) const fn record_model_load(_pool: &Workload, _took: Duration) {}

pub(crate) const fn publish_bodies(_budget: &Budget) {}

pub(crate) const fn publish_routes(_pool: &Workload, _unmatched: usize) {}
