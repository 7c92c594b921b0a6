//! A model behind gRPC: unary calls share batches over sessions of `rten`, and streams give a result for each item.

#![allow(clippy::unwrap_used, reason = "the functions that tests share are tests too")]

mod client;
mod server;

#[allow(dead_code, unreachable_pub, reason = "the example uses more of it")]
#[path = "../../../examples/server/session.rs"]
mod session;

#[allow(dead_code, reason = "the tests of the example use more of it")]
#[path = "../../../tests/example/onnx.rs"]
mod onnx;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tonic::{Code, Status};
use tower_offload::PoolConfig;

use self::client::{Client, Plain, Received};
use self::onnx::{Does, model};
use self::server::ServedBy::{self, Offload, Tonic};
use self::server::{Digit, Digits, MAX_ITEMS, io};
use self::session::{PIXELS, Session};

const DIGITS: &[u8] = include_bytes!("../../../examples/server/model/digits.onnx");

/// The time after which something counts as hanging. It decides nothing else.
const PATIENCE: Duration = Duration::from_secs(120);

async fn in_time<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future).await.expect("this takes less than two minutes")
}

async fn until(what: &str, is_so: impl Fn() -> bool) {
    let wait = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("this never was so: {what}"));
}

/// Images that the network was not trained with. Each is a mixture of two, so that its probabilities are its own.
fn images() -> Vec<Vec<f32>> {
    #[derive(serde::Deserialize)]
    struct HeldOut {
        inputs: Vec<Vec<f32>>,
    }
    let held_out = include_str!("../../../examples/server/model/heldout.json");
    let HeldOut { inputs } = serde_json::from_str(held_out).unwrap();
    let mixed = |pair: &[Vec<f32>]| pair[0].iter().zip(&pair[1]).map(|(one, other)| (one + other) / 2.0).collect();
    inputs.windows(2).map(mixed).collect()
}

/// An image that does no harm to a model of `onnx`, and one that does.
fn dark_and_bright() -> ([f32; PIXELS], [f32; PIXELS]) {
    ([1.0; PIXELS], [16.0; PIXELS])
}

/// The answers to single images, from a session that no other image came to.
fn expected(images: &[Vec<f32>]) -> Vec<Digit> {
    let mut session = Session::load(DIGITS.to_vec()).unwrap();
    let one = |image: &Vec<f32>| session::classify(&mut session, vec![image.clone()]).unwrap().remove(0).into();
    images.iter().map(one).collect()
}

fn is_same(one: &Digit, other: &Digit) -> bool {
    let differ = |(one, other): (&f32, &f32)| (one - other).abs() > 1e-5;
    one.class == other.class && !one.probabilities.iter().zip(&other.probabilities).any(differ)
}

/// A call on its own, which is in the model's pool when this returns, the gate being closed.
async fn queued<T: Send + 'static>(
    digits: &Digits,
    call: impl Future<Output = T> + Send + 'static,
) -> tokio::task::JoinHandle<T> {
    let before = digits.inference().counts.submitted;
    let call = tokio::spawn(call);
    until("the call is in the pool", || digits.inference().counts.submitted == before + 1).await;
    call
}

/// A call that waits at the gate in the model, so that what comes after it is queued.
async fn at_the_gate(digits: &Digits, client: &Client) -> tokio::task::JoinHandle<Result<Digit, Status>> {
    digits.batches.close();
    let begun = digits.batches.sizes().len();
    let call = tokio::spawn(client.classify(&dark_and_bright().0));
    until("a batch is at the gate", || digits.batches.sizes().len() == begun + 1).await;
    call
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_calls_share_batches_and_each_gets_its_own_answer() {
    let digits = Digits::serve(Tonic, DIGITS.to_vec(), 2).await;
    let images = images();
    let expected = expected(&images[..200]);
    let is_new = |&(at, one): &(usize, &Digit)| !expected[..at].iter().any(|other| is_same(one, other));
    let distinct = expected.iter().enumerate().filter(is_new).count();
    assert!(distinct > 190, "only {distinct} answers differ, so others could be exchanged");
    digits.batches.close();
    let clients = [Client::connect(&digits).await, Client::connect(&digits).await];
    let calls: Vec<_> =
        images[..200].iter().enumerate().map(|(at, image)| tokio::spawn(clients[at % 2].classify(image))).collect();
    let all = || digits.inference().queued_tasks + digits.inference().in_flight == 200;
    until("all calls wait in the pool", all).await;
    assert!(digits.inference().permits_in_use <= 2);
    digits.batches.open();
    for (at, call) in calls.into_iter().enumerate() {
        let answer = in_time(call).await.unwrap().unwrap();
        assert!(is_same(&answer, &expected[at]), "image {at}: {answer:?} in place of {:?}", expected[at]);
    }
    let sizes = digits.batches.sizes();
    assert_eq!(sizes.iter().sum::<usize>(), 200, "no item runs twice: {sizes:?}");
    assert!(sizes.len() <= 7 && sizes.iter().all(|&items| items <= MAX_ITEMS), "{sizes:?}");
    let (inference, io) = (digits.inference(), digits.io());
    // The first session was made by a task of its own.
    assert_eq!((inference.counts.ok, io.counts.ok), (201, 200));
    assert_eq!(inference.batches.unwrap().ok, sizes.len() as u64, "{:?}", inference.batches);
    assert!(digits.sessions.stats().idle <= 2);
}

/// Not under tonic's own server, whose timer may be faster.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_whose_deadline_passes_leaves_its_batch_with_deadline_exceeded() {
    let digits = Digits::serve(Offload, DIGITS.to_vec(), 1).await;
    let (client, plain, images) = (Client::connect(&digits).await, Plain::new(&digits), images());
    let first = at_the_gate(&digits, &client).await;
    let call = |timeout: &'static str, image: usize| {
        let (plain, image) = (plain.clone(), images[image].clone());
        async move { plain.classify(Some(timeout), &image).await }
    };
    let in_time_still = queued(&digits, call("1H", 1)).await;
    // On a slow machine, the time may be over before the call is in the model's pool.
    let mut too_soon = 0;
    let late: Received = loop {
        let before = digits.inference().counts.submitted;
        let late = in_time(call(["200m", "2S", "20S"][too_soon], 2)).await;
        if digits.inference().counts.submitted > before {
            break late;
        }
        too_soon += 1;
    };
    until("the call has left the queue", || digits.inference().queued_tasks == 1).await;
    let unstarted: Received = in_time(call("0n", 3)).await;
    digits.batches.open();
    assert!(in_time(first).await.unwrap().is_ok());
    let answered = in_time(in_time_still).await.unwrap();
    assert_eq!(answered.status, Code::Ok);
    assert!(is_same(&answered.message.unwrap(), &expected(&images[1..2])[0]));
    assert_eq!(digits.batches.sizes(), [1, 1], "the late item was in no batch");
    for (late, which) in [(late, "queued"), (unstarted, "too late at once")] {
        assert_eq!((late.status, late.trailers_only), (Code::DeadlineExceeded, true), "{which}: {late:?}");
        assert!(late.message.is_none());
        let message = late.headers["grpc-message"].to_str().unwrap();
        assert!(message.contains("deadline"), "{which}: {message}");
    }
    let counts = digits.inference().counts;
    assert_eq!((counts.ok, counts.expired), (3, 1), "{counts:?}");
    let expired = digits.io().counts.expired;
    assert_eq!(expired, 1 + too_soon as u64, "the call that came too late was not submitted to the model");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_are_cancelled_leave_their_batch_before_it_forms() {
    let digits = Digits::serve(Tonic, DIGITS.to_vec(), 1).await;
    let (client, images) = (Client::connect(&digits).await, images());
    let first = at_the_gate(&digits, &client).await;
    let mut calls = Vec::new();
    for image in &images[..6] {
        calls.push(queued(&digits, client.classify(image)).await);
    }
    for at in [0, 3, 4] {
        calls[at].abort();
    }
    until("three items have left", || digits.inference().queued_tasks == 3 && digits.io().in_flight == 4).await;
    digits.batches.open();
    in_time(first).await.unwrap().unwrap();
    let expected = expected(&images[..6]);
    for (at, call) in calls.into_iter().enumerate() {
        let answer = in_time(call).await;
        match at {
            0 | 3 | 4 => assert!(answer.unwrap_err().is_cancelled()),
            _ => assert!(is_same(&answer.unwrap().unwrap(), &expected[at]), "image {at}"),
        }
    }
    assert_eq!(digits.batches.sizes(), [1, 3]);
    let (inference, io) = (digits.inference().counts, digits.io().counts);
    assert_eq!((inference.cancelled, io.cancelled), (3, 3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_is_cancelled_in_its_batch_leaves_the_others_their_answers() {
    let images = images();
    let expected = expected(&images[..3]);
    // The first item leads the batch, and the others ride in its permit.
    for leaves in [0, 1] {
        let digits = Digits::serve(Tonic, DIGITS.to_vec(), 1).await;
        let client = Client::connect(&digits).await;
        let first = at_the_gate(&digits, &client).await;
        let mut calls = Vec::new();
        for image in &images[..3] {
            calls.push(queued(&digits, client.classify(image)).await);
        }
        digits.batches.let_one_pass();
        in_time(first).await.unwrap().unwrap();
        until("the batch is at the gate", || digits.batches.sizes() == [1, 3]).await;
        calls[leaves].abort();
        until("the call has left", || digits.io().in_flight == 2).await;
        digits.batches.open();
        for (at, call) in calls.into_iter().enumerate() {
            match in_time(call).await {
                Ok(answer) => assert!(at != leaves && is_same(&answer.unwrap(), &expected[at]), "image {at}"),
                Err(aborted) => assert!(aborted.is_cancelled() && at == leaves),
            }
        }
        assert_eq!(digits.batches.sizes(), [1, 3], "nothing runs twice");
    }
}

/// Each version of the model has an answer of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_that_is_swapped_under_load_fails_no_call() {
    let digits = Digits::serve(Tonic, model(0, Does::Nothing), 2).await;
    let (done, client, (dark, _)) = (Arc::<AtomicBool>::default(), Client::connect(&digits).await, dark_and_bright());
    let callers: Vec<_> = (0..16)
        .map(|_| {
            let (client, done) = (client.clone(), done.clone());
            tokio::spawn(async move {
                let mut classes = [0; 10];
                while !done.load(Ordering::SeqCst) {
                    classes[client.classify(&dark).await.unwrap().class as usize] += 1;
                }
                classes
            })
        })
        .collect();
    let ended = || digits.inference().counts.ok;
    for class in 1..10 {
        let before = ended();
        until("calls are answered between swaps", || ended() >= before + 16).await;
        let next = model(class, Does::Nothing);
        let swapped = in_time(digits.sessions.swap(move || Session::load(next.clone()))).await.unwrap();
        assert!(swapped.is_complete() && swapped.error.is_none(), "{swapped:?}");
        assert_eq!(in_time(client.classify(&dark)).await.unwrap().class, class as u32, "the swap has ended");
        // A file that is no model changes nothing.
        let broken = in_time(digits.sessions.swap(|| Session::load(b"half a file".to_vec()))).await;
        assert!(broken.is_err());
    }
    done.store(true, Ordering::SeqCst);
    let mut classes = [0; 10];
    for caller in callers {
        for (all, one) in classes.iter_mut().zip(in_time(caller).await.unwrap()) {
            *all += one;
        }
    }
    assert!(classes.iter().all(|&calls| calls > 0), "each version has served: {classes:?}");
    let (inference, io, batches) = (digits.inference().counts, digits.io().counts, digits.inference().batches.unwrap());
    assert_eq!((inference.ok, io.ok, io.error), (inference.submitted, io.submitted, 0));
    assert_eq!((batches.error, batches.panicked, batches.cancelled), (0, 0, 0));
    assert!(inference.ok - 1 > batches.ok, "{} items in {} batches", inference.ok - 1, batches.ok);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pool_that_is_full_answers_resource_exhausted_in_trailers_alone() {
    for by in [Tonic, Offload] {
        full_pools(by).await;
    }
}

async fn full_pools(by: ServedBy) {
    // The model's pool has a queue of two items, and the other pool room for four calls.
    let (model_pool, calls) = (PoolConfig::new(1).queue_capacity(2), io().concurrency(4).queue_capacity(0));
    let digits = Digits::serve_in(by, DIGITS.to_vec(), model_pool, calls).await;
    let (client, plain, (dark, _)) = (Client::connect(&digits).await, Plain::new(&digits), dark_and_bright());
    let first = at_the_gate(&digits, &client).await;
    let mut waiting = Vec::new();
    for _ in 0..2 {
        waiting.push(queued(&digits, client.classify(&dark)).await);
    }
    let by_the_batch = in_time(plain.classify(None, &dark)).await;
    assert_eq!(digits.inference().counts.rejected, 1);
    let held = tokio::spawn(client.classify_later(&dark));
    until("four calls are in their pool", || digits.io().in_flight == 4).await;
    let by_the_layer = in_time(plain.classify(None, &dark)).await;
    assert_eq!(digits.io().counts.rejected, 1);
    for (full, pool) in [(by_the_batch, "inference"), (by_the_layer, "io")] {
        assert_eq!((full.status, full.trailers_only), (Code::ResourceExhausted, true), "{by:?}, {pool}: {full:?}");
        assert!(full.message.is_none());
        let headers = &full.headers;
        assert_eq!(headers["content-type"], "application/grpc");
        let message = headers["grpc-message"].to_str().unwrap().replace("%20", " ");
        assert!(message.contains(pool) && message.ends_with("its queue is full"), "{message}");
        let wait: u64 = headers["grpc-retry-pushback-ms"].to_str().unwrap().parse().unwrap();
        assert!(wait > 0);
    }
    digits.batches.open();
    for call in waiting.into_iter().chain([first]) {
        assert!(in_time(call).await.unwrap().is_ok(), "calls that were accepted are answered");
    }
    digits.calls.add_permits(1);
    assert!(in_time(held).await.unwrap().is_ok(), "there is room again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_finishes_what_was_accepted_and_answers_unavailable_to_the_rest() {
    let mut digits = Digits::serve(Tonic, DIGITS.to_vec(), 2).await;
    let (client, plain, images) = (Client::connect(&digits).await, Plain::new(&digits), images());
    // A call before its batch, a batch, items that wait for the next one, and a stream.
    let before_its_batch = tokio::spawn(client.classify_later(&images[0]));
    let mut stream = in_time(client.classify_each(&[&images[1], &images[2]])).await.unwrap();
    digits.items.add_permits(1);
    assert!(in_time(stream.message()).await.unwrap().is_some());
    let batch = at_the_gate(&digits, &client).await;
    let mut waiting = Vec::new();
    for image in &images[3..6] {
        waiting.push(queued(&digits, client.classify(image)).await);
    }
    until("a call waits before its batch", || digits.io().in_flight == 5).await;

    let shutdown = digits.pools.shutdown(Duration::from_secs(60));
    let refused = in_time(plain.classify(None, &images[6])).await;
    assert_eq!((refused.status, refused.trailers_only), (Code::Unavailable, true), "{refused:?}");
    let no_stream = in_time(client.classify_each(&[&images[6]])).await.unwrap_err();
    assert_eq!(no_stream.code(), Code::Unavailable);
    let (report, ()) = tokio::join!(shutdown, async {
        digits.calls.add_permits(1);
        digits.items.add_permits(1);
        digits.batches.open();
    });
    assert!(report.is_complete(), "{report}");
    let expected = expected(&images[..7]);
    let first = in_time(before_its_batch).await.unwrap().unwrap();
    assert!(is_same(&first, &expected[0]), "a call that was accepted may still submit its item");
    assert!(is_same(&in_time(stream.message()).await.unwrap().unwrap(), &expected[2]));
    assert!(in_time(stream.message()).await.unwrap().is_none(), "the stream has a clean end");
    in_time(batch).await.unwrap().unwrap();
    for (at, call) in waiting.into_iter().enumerate() {
        assert!(is_same(&in_time(call).await.unwrap().unwrap(), &expected[3 + at]));
    }
    digits.stop.notify_one();
    in_time(&mut digits.server).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_shuts_down_answers_the_calls_of_all_stages_and_reports_none_as_cut_off() {
    let mut digits = Digits::serve(Offload, DIGITS.to_vec(), 2).await;
    let (client, images) = (Client::connect(&digits).await, images());
    let before_its_batch = tokio::spawn(client.classify_later(&images[0]));
    let mut stream = in_time(client.classify_each(&[&images[1], &images[2]])).await.unwrap();
    let batch = at_the_gate(&digits, &client).await;
    let waiting = queued(&digits, client.classify(&images[3])).await;
    until("a call waits before its batch", || digits.io().in_flight == 3).await;
    digits.stop.notify_one();
    in_time(digits.pools.draining()).await;
    digits.calls.add_permits(1);
    digits.items.add_permits(2);
    digits.batches.open();
    let expected = expected(&images[..4]);
    assert!(is_same(&in_time(before_its_batch).await.unwrap().unwrap(), &expected[0]));
    for image in [1, 2] {
        assert!(is_same(&in_time(stream.message()).await.unwrap().unwrap(), &expected[image]));
    }
    assert!(in_time(stream.message()).await.unwrap().is_none(), "the stream has a clean end");
    in_time(batch).await.unwrap().unwrap();
    assert!(is_same(&in_time(waiting).await.unwrap().unwrap(), &expected[3]));
    drop(client);
    in_time(&mut digits.server).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_item_on_which_the_model_fails_or_panics_harms_its_own_call_alone() {
    for (does, message) in [(Does::Fails, "the batch failed"), (Does::Panics, "the task panicked")] {
        let digits = Digits::serve(Tonic, model(7, does), 1).await;
        let (client, (dark, bright)) = (Client::connect(&digits).await, dark_and_bright());
        let first = at_the_gate(&digits, &client).await;
        let mut calls = Vec::new();
        for at in 0..5 {
            calls.push(queued(&digits, client.classify(if at == 2 { &bright } else { &dark })).await);
        }
        digits.batches.open();
        in_time(first).await.unwrap().unwrap();
        for (at, call) in calls.into_iter().enumerate() {
            match in_time(call).await.unwrap() {
                Err(status) => assert_eq!((at, status.code(), status.message()), (2, Code::Internal, message)),
                Ok(digit) => assert!(at != 2 && digit.class == 7, "{does:?}: {digit:?}"),
            }
        }
        assert_eq!(digits.batches.sizes(), [1, 5, 1, 1, 1, 1, 1], "each item was run once more, alone");
        assert_eq!(in_time(client.classify(&dark)).await.unwrap().class, 7, "{does:?}: the model serves on");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_has_a_result_for_each_item_computed_by_the_workers_of_the_model() {
    let digits = Digits::serve(Tonic, DIGITS.to_vec(), 1).await;
    let (client, images) = (Client::connect(&digits).await, images());
    digits.items.add_permits(50);
    let asked: Vec<_> = images[..50].iter().map(Vec::as_slice).collect();
    let mut stream = in_time(client.classify_each(&asked)).await.unwrap();
    for (at, expected) in expected(&images[..50]).iter().enumerate() {
        let digit = in_time(stream.message()).await.unwrap().unwrap();
        assert!(is_same(&digit, expected), "image {at}: {digit:?}");
        assert!(digit.thread.starts_with("offload-inference-"), "image {at} in {}", digit.thread);
    }
    assert!(in_time(stream.message()).await.unwrap().is_none());
    until("the stream is over", || digits.inference().in_flight == 0).await;
    let stats = digits.sessions.stats();
    assert_eq!((stats.idle, stats.in_use), (1, 0), "one session ran all of it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_holds_its_permit_until_its_client_leaves() {
    let digits = Digits::serve(Tonic, DIGITS.to_vec(), 1).await;
    let (client, images) = (Client::connect(&digits).await, images());
    digits.items.add_permits(1);
    let mut stream = in_time(client.classify_each(&[&images[0], &images[1]])).await.unwrap();
    assert!(in_time(stream.message()).await.unwrap().is_some());
    let call = queued(&digits, client.classify(&images[2])).await;
    let stats = digits.inference();
    assert_eq!((stats.streams, stats.permits_in_use, stats.queued_tasks), (1, 1, 1));
    drop(stream);
    let answer = in_time(call).await.unwrap().unwrap();
    assert!(is_same(&answer, &expected(&images[2..3])[0]));
    assert_eq!((digits.inference().streams, digits.inference().counts.cancelled), (0, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_item_of_a_stream_on_which_the_model_fails_leaves_the_others_their_results() {
    let digits = Digits::serve(Tonic, model(4, Does::Fails), 1).await;
    let (client, (dark, bright)) = (Client::connect(&digits).await, dark_and_bright());
    digits.items.add_permits(3);
    let mut stream = in_time(client.classify_each(&[&dark, &bright, &dark])).await.unwrap();
    for fails in [false, true, false] {
        let digit = in_time(stream.message()).await.unwrap().unwrap();
        assert_eq!((digit.problem.is_empty(), digit.class), if fails { (false, 0) } else { (true, 4) }, "{digit:?}");
    }
    assert!(in_time(stream.message()).await.unwrap().is_none());
}
