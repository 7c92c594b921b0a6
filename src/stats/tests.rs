//! The forms that operators and their scripts read: the status block and the JSON, to the letter.

use std::time::Duration;

use super::json::{Document, Readiness, ScaleNumbers};
use super::status::block;
use crate::admission::Counts;
use crate::load::{Measured, PoolLoad, Scale};
use crate::pool::{ActiveTask, BatchCounts, HoldingStats, PoolStats, SlotsStats};
use crate::workload::Workload;

fn pool(name: &'static str, active_threads: usize, max_workers: usize, queued_tasks: usize) -> PoolStats {
    PoolStats {
        name: Workload::from_static(name),
        workers: active_threads + 1,
        max_workers,
        active_threads,
        in_flight: active_threads,
        permits_in_use: active_threads,
        concurrency_limit: max_workers,
        queued_tasks,
        queue_capacity: 1000,
        oldest_wait: Duration::ZERO,
        mean_run: None,
        overloaded: queued_tasks > 0,
        draining: false,
        load_ratio: active_threads as f64 / 10.0,
        streams: active_threads * 2,
        streams_limit: 100,
        stream_buffered_bytes: active_threads * 1000,
        counts: Counts {
            submitted: 40 + queued_tasks as u64 + active_threads as u64,
            ok: 39,
            shed: 1,
            ..Counts::default()
        },
        batches: None,
        active_tasks: Vec::new(),
        holdings: HoldingStats::default(),
    }
}

/// Three pools that are not ordered by name, one of which runs a task.
fn pools() -> [PoolStats; 3] {
    let task = ActiveTask {
        task_id: 45,
        function: "heavy_computation".to_owned(),
        running_for: Duration::from_micros(1_234_567),
        thread: None,
    };
    let cpu = PoolStats { active_tasks: vec![task], ..pool("cpu", 8, 30, 2) };
    [pool("io", 3, 50, 0), cpu, pool("inference", 3, 20, 0)]
}

#[test]
fn the_status_block_is_this_line_by_line() {
    assert_eq!(
        block(&pools()),
        [
            "ThreadPoolManager Current Status:",
            "============================================================",
            "  io           | Workers:   3/ 50 (  6.0%) | Queued:   0",
            "  cpu          | Workers:   8/ 30 ( 26.7%) | Queued:   2",
            "    └─ Task #45: heavy_computation (running for 1.2s)",
            "  inference    | Workers:   3/ 20 ( 15.0%) | Queued:   0",
            "------------------------------------------------------------",
            "  Total: 14 active threads, 2 queued tasks",
            "============================================================",
        ]
    );
}

#[test]
fn a_row_lines_up_with_the_others_when_its_pool_is_full() {
    let rows = block(&[pool("io", 3, 50, 0), pool("inference", 20, 20, 999)]);
    assert_eq!(rows[3], "  inference    | Workers:  20/ 20 (100.0%) | Queued: 999");
    assert_eq!(rows[2].len(), rows[3].len());
}

#[test]
fn the_json_is_this_to_the_letter() {
    let pools = pools();
    let numbers = |name: &str, active: usize, max: usize, queued: usize, percent: &str, tasks: &str| {
        let (workers, submitted, overloaded) = (active + 1, 40 + queued + active, queued > 0);
        format!(
            r#""{name}":{{"max_workers":{max},"active_threads":{active},"queued_tasks":{queued},"active_tasks":[{tasks}],"#
        ) + &format!(r#""workers":{workers},"queue_capacity":1000,"in_flight":{active},"permits_in_use":{active},"#)
            + &format!(
                r#""concurrency_limit":{max},"overloaded":{overloaded},"draining":false,"utilization_percent":{percent},"#
            )
            + &format!(r#""load_ratio":{},"#, active as f64 / 10.0)
            + &format!(r#""streams":{{"open":{},"limit":100,"buffered_bytes":{active}000}},"#, active * 2)
            + &format!(
                r#""submitted":{submitted},"results":{{"ok":39,"error":0,"panicked":0,"cancelled":0,"stalled":0,"shed":1,"expired":0,"rejected":0}}}}"#
            )
    };
    let task = r#"{"task_id":45,"function":"heavy_computation","running_for_seconds":1.235}"#;
    let expected = [
        r#"{"summary":{"total_workers":100,"total_active":14,"total_queued":2,"utilization_percent":14.0},"pools":{"#,
        &numbers("io", 3, 50, 0, "6.0", ""),
        ",",
        &numbers("cpu", 8, 30, 2, "26.7", task),
        ",",
        &numbers("inference", 3, 20, 0, "15.0", ""),
        "}}",
    ];
    assert_eq!(serde_json::to_string(&Document::of(&pools, &[])).unwrap(), expected.concat());
}

#[test]
fn the_json_counts_the_batches_of_a_pool_with_batches() {
    let shown = |batches| {
        serde_json::to_string(&Document::of(&[PoolStats { batches, ..pool("embedding", 0, 5, 0) }], &[])).unwrap()
    };
    let json = shown(Some(BatchCounts { ok: 7, panicked: 1, ..BatchCounts::default() }));
    assert!(json.contains(r#""rejected":0},"batches":{"ok":7,"error":0,"panicked":1,"cancelled":0}}"#), "{json}");
    assert!(!shown(None).contains("batches"));
}

#[test]
fn the_json_shows_that_a_slot_value_could_not_be_made_but_not_its_error() {
    let slots = |error: Option<&str>| SlotsStats {
        name: "Connection".to_owned(),
        generation: 1,
        error: error.map(str::to_owned),
        ..SlotsStats::default()
    };
    let shown = |slots| {
        let holdings = HoldingStats { slots: vec![slots], ..HoldingStats::default() };
        serde_json::to_string(&Document::of(&[PoolStats { holdings, ..pool("db", 0, 5, 0) }], &[])).unwrap()
    };
    let json = shown(slots(Some("cannot connect to postgres://user:secret@db")));
    let expected =
        r#""slots":[{"name":"Connection","generation":1,"idle":0,"in_use":0,"loading":0,"outdated":0,"failing":true}]"#;
    assert!(json.contains(expected) && !json.contains("secret"), "{json}");
    let json = shown(slots(None));
    assert!(json.contains(r#""failing":false}]"#), "{json}");
}

#[test]
fn readiness_lists_the_overloaded_pools_in_their_order() {
    let stats = [pool("io", 1, 1, 1), pool("cpu", 1, 1, 0), pool("db", 1, 1, 1)];
    let shown = |draining, stats| serde_json::to_string(&Readiness::of(draining, stats)).unwrap();
    assert_eq!(shown(false, &stats), r#"{"ready":false,"pools":{"io":"overloaded","db":"overloaded"}}"#);
    assert_eq!(shown(false, &stats[1..2]), r#"{"ready":true,"pools":{}}"#);
    assert_eq!(shown(true, &[]), r#"{"ready":false,"pools":{},"reason":"draining"}"#);
}

#[test]
fn the_load_for_autoscalers_is_this_to_the_letter() {
    let pool = |name, permits, cpu| {
        let measured = Measured { permits, cpu, ..Measured::default() };
        PoolLoad::new(Workload::from_static(name), measured)
    };
    let shown = |pools| serde_json::to_string(&ScaleNumbers::of(&Scale::default().load(pools))).unwrap();
    assert_eq!(
        shown(vec![pool("io", 0.02, 0.001), pool("inference", 1.8304, 0.9), pool("db", 0.0, 0.0)]),
        r#"{"load":1.83,"target":0.7,"factor":2.615,"bound_by":"inference","pools":{"io":0.02,"inference":1.83,"db":0.0}}"#
    );
    assert_eq!(
        shown(vec![pool("io", 0.1, 0.5), pool("cpu", 0.2, 0.5)]),
        r#"{"load":1.0,"target":0.7,"factor":1.429,"bound_by":null,"pools":{"io":0.5,"cpu":0.5}}"#
    );
    assert_eq!(shown(Vec::new()), r#"{"load":0.0,"target":0.7,"factor":0.0,"bound_by":null,"pools":{}}"#);
}
