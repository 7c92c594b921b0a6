//! Checkpoints: a running task learns that its caller left, that its deadline has passed, or that a shutdown cuts it
//! off.

use std::time::Duration;

use tower_offload::pool::TaskOptions;
use tower_offload::{Cancelled, Deadline, PoolConfig, cancelled, checkpoint, is_cancelled};

use crate::support::{Gate, PATIENCE, begun_in_time, end_of, pools, stats, until, until_at_rest};

#[test]
fn outside_of_a_task_nothing_is_cancelled() {
    assert_eq!(checkpoint(), Ok(()));
    assert!(!is_cancelled());
    assert!(tokio_test::task::spawn(cancelled()).poll().is_pending());
}

#[test]
fn a_blocking_task_learns_that_its_caller_left_and_releases_its_permit() {
    let pools = pools("left", PoolConfig::new(1));
    let (begun, noticed) = (Gate::default(), Gate::default());
    let (begins, notices) = (begun.clone(), noticed.clone());
    let task = pools.submit_to_pool("left", move || {
        begins.open();
        while checkpoint() != Err(Cancelled::CallerLeft) {
            std::thread::yield_now();
        }
        notices.open();
    });
    begun.wait();
    task.unwrap().cancel();
    noticed.wait();
    until_at_rest(&pools, "left");
    assert_eq!(stats(&pools, "left").counts.ok, 1, "it ended as it chose");
}

#[test]
fn a_dropped_handle_cancels_nothing() {
    let pools = pools("drop", PoolConfig::new(1));
    let (begun, gate, noticed) = (Gate::default(), Gate::default(), Gate::default());
    let (begins, holds, notices) = (begun.clone(), gate.clone(), noticed.clone());
    let task = pools.submit_to_pool("drop", move || {
        begins.open();
        holds.wait();
        assert_eq!(checkpoint(), Ok(()));
        notices.open();
    });
    begun.wait();
    drop(task);
    gate.open();
    noticed.wait();
}

#[test]
fn a_task_learns_that_its_deadline_has_passed() {
    let pools = pools("late", PoolConfig::new(1));
    let pool = pools.get("late").unwrap();
    let blocks = begun_in_time(|deadline| {
        let task = || {
            while !is_cancelled() {
                std::thread::yield_now();
            }
            checkpoint()
        };
        end_of(pool.submit_with(TaskOptions::new().deadline(deadline), task)?)
    });
    assert_eq!(blocks, Err(Cancelled::DeadlinePassed));
    let awaits =
        begun_in_time(|deadline| end_of(pool.submit_with(TaskOptions::new().deadline(deadline), cancelled())?));
    assert_eq!(awaits, Cancelled::DeadlinePassed);
    let in_time = pool.submit_with(TaskOptions::new().deadline(Deadline::after(PATIENCE)), checkpoint);
    assert_eq!(end_of(in_time.unwrap()).unwrap(), Ok(()));
}

#[test]
fn tasks_in_flight_learn_that_a_shutdown_cuts_them_off() {
    let pools = pools("cut", PoolConfig::new(2));
    let begun = Gate::default();
    let begins = begun.clone();
    let blocks = pools.submit_to_pool("cut", move || {
        begins.open();
        while !is_cancelled() {
            std::thread::yield_now();
        }
        checkpoint()
    });
    begun.wait();
    let awaits = pools.submit_to_pool("cut", async { cancelled().await });
    until("both are in flight", || stats(&pools, "cut").in_flight == 2);
    let mut shutdown = tokio_test::task::spawn(pools.shutdown(Duration::from_millis(10)));
    let _ = shutdown.poll();
    until("the deadline has passed", || shutdown.is_woken());
    let _ = shutdown.poll();
    assert_eq!(end_of(blocks.unwrap()).unwrap(), Err(Cancelled::CutOff));
    assert_eq!(end_of(awaits.unwrap()).unwrap(), Cancelled::CutOff);
}

#[test]
fn a_cancellation_is_a_response_and_a_status() {
    use axum::response::IntoResponse;
    use tonic::{Code, Status};
    let cases = [
        (Cancelled::DeadlinePassed, 504, Code::DeadlineExceeded),
        (Cancelled::CallerLeft, 500, Code::Internal),
        (Cancelled::CutOff, 500, Code::Internal),
    ];
    for (cancelled, status, code) in cases {
        let response = cancelled.into_response();
        assert_eq!(
            (response.status().as_u16(), &response.headers()["content-type"]),
            (status, &http::HeaderValue::from_static("application/problem+json"))
        );
        let converted = Status::from(cancelled);
        assert_eq!((converted.code(), converted.message()), (code, cancelled.to_string().as_str()));
    }
}

#[test]
fn a_cancellation_converts_into_the_errors_of_blocking_code() {
    fn reads() -> std::io::Result<()> {
        checkpoint()?;
        Err(Cancelled::DeadlinePassed)?
    }
    assert_eq!(reads().unwrap_err().kind(), std::io::ErrorKind::TimedOut);
}
