//! Models of the buffer between a worker and a connection. Loom runs them through every interleaving of their threads, up
//! to a bound on preemptions.
//!
//! | broken | fails |
//! |---|---|
//! | `push`, `end` or `poll_frame` wakes nobody; a waker is stored after the lock was released | `every_frame_arrives_although_the_buffer_is_full_at_each` |
//! | `leave` wakes nobody | `a_producer_that_waits_learns_that_its_reader_left` |
//! | `look` wakes nobody, or changes nothing | `a_stall_ends_the_wait_of_the_producer_and_of_the_reader` |

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http_body::Frame;
use loom::future::block_on;
use loom::thread::{self, JoinHandle};

use super::buffer::Buffer;
use super::pump::Producer;
use super::watch::Watched;
use crate::admission::Outcome;

fn explore(model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(2);
    builder.check(model);
}

fn frame() -> Frame<Bytes> {
    Frame::data(Bytes::from_static(b"frame"))
}

/// A buffer that two frames fill.
fn buffer() -> Arc<Buffer<Bytes>> {
    Buffer::new(1, Duration::ZERO, None)
}

/// Pushes frames, each when there is space, and ends the body.
fn produce(buffer: &Arc<Buffer<Bytes>>, frames: usize) -> JoinHandle<Outcome> {
    let mut producer = Producer::new(buffer.clone());
    thread::spawn(move || {
        for _ in 0..frames {
            if let Err(outcome) = block_on(poll_fn(|cx| producer.poll_space(cx))) {
                return outcome;
            }
            producer.buffer().push(frame());
        }
        producer.buffer().end(Ok(()));
        block_on(producer.finish(Outcome::Ok, true))
    })
}

#[test]
fn every_frame_arrives_although_the_buffer_is_full_at_each() {
    explore(|| {
        let buffer = buffer();
        let producer = produce(&buffer, 3);
        let mut frames = 0;
        while let Some(frame) = block_on(poll_fn(|cx| buffer.poll_frame(cx))) {
            frame.expect("the body ends well");
            frames += 1;
        }
        assert_eq!(frames, 3);
        assert_eq!(producer.join().expect("it ends"), Outcome::Ok);
    });
}

#[test]
fn a_producer_that_waits_learns_that_its_reader_left() {
    explore(|| {
        let buffer = buffer();
        let producer = produce(&buffer, 4);
        let polled = block_on(poll_fn(|cx| match buffer.poll_frame(cx) {
            Poll::Pending => Poll::Ready(None),
            Poll::Ready(frame) => Poll::Ready(frame),
        }));
        drop(polled);
        buffer.leave(false);
        assert_eq!(producer.join().expect("it ends"), Outcome::Cancelled);
    });
}

#[test]
fn a_stall_ends_the_wait_of_the_producer_and_of_the_reader() {
    explore(|| {
        let buffer = buffer();
        buffer.push(frame());
        buffer.push(frame());
        let producer = produce(&buffer, 1);
        let timer = {
            let buffer = buffer.clone();
            thread::spawn(move || buffer.look())
        };
        assert_eq!(timer.join().expect("it ends"), None);
        assert_eq!(producer.join().expect("it ends"), Outcome::Stalled);
        let last = block_on(poll_fn(|cx| buffer.poll_frame(cx)));
        assert!(last.is_some_and(|frame| frame.is_err()), "no stall is a clean end");
    });
}
