//! A recorder of metrics that panics. It is the one of the whole process, so this is a program by itself.

#![cfg(feature = "metrics")]
#![allow(clippy::unwrap_used, reason = "this is a test")]

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use futures_util::{StreamExt, future::join_all, stream};
use http::{Request, Response};
use http_body_util::BodyExt;
use metrics::{
    Counter, Gauge, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString, Unit, set_global_recorder,
};
use tokio::time::timeout;
use tower::{Layer, ServiceExt, service_fn};
use tower_offload::batch::Batch;
use tower_offload::body::BodyPolicy;
use tower_offload::{Cpu, PoolConfig, PoolLayer, Pools};

struct Panics;

impl HistogramFn for Panics {
    fn record(&self, _value: f64) {
        panic!("the recorder");
    }
}

impl Recorder for Panics {
    fn describe_counter(&self, _key: KeyName, _unit: Option<Unit>, _description: SharedString) {}

    fn describe_gauge(&self, _key: KeyName, _unit: Option<Unit>, _description: SharedString) {}

    fn describe_histogram(&self, _key: KeyName, _unit: Option<Unit>, _description: SharedString) {}

    fn register_counter(&self, _key: &Key, _metadata: &Metadata<'_>) -> Counter {
        Counter::noop()
    }

    fn register_gauge(&self, _key: &Key, _metadata: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }

    fn register_histogram(&self, _key: &Key, _metadata: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(Arc::new(Self))
    }
}

async fn in_time<F: Future>(future: F) -> F::Output {
    timeout(Duration::from_secs(60), future).await.expect("this must not take for ever")
}

#[tokio::test]
async fn a_recorder_that_panics_harms_no_task_no_batch_and_no_body() {
    set_global_recorder(Panics).map_err(|_| "there is another one").unwrap();
    let pools = Pools::builder().pool(Cpu, PoolConfig::new(1)).build().unwrap();
    assert_eq!(in_time(pools.run_in_pool(Cpu, || 7)).await.unwrap(), 7);

    let (release, held) = std::sync::mpsc::channel::<()>();
    let holds = pools.submit_to_pool(Cpu, move || held.recv()).unwrap();
    let batch = Batch::builder(&pools, Cpu).run(|items: Vec<u32>| items.into_iter().map(Ok::<_, Infallible>).collect());
    let batch = batch.unwrap();
    let results = in_time(async {
        let results = join_all((0..4).map(|item| batch.clone().oneshot(item)));
        let release = async {
            while pools.get(Cpu).unwrap().stats().queued_tasks < 4 {
                tokio::task::yield_now().await;
            }
            release.send(()).unwrap();
        };
        tokio::join!(results, release).0
    });
    assert_eq!(results.await.into_iter().map(Result::unwrap).collect::<Vec<_>>(), [0, 1, 2, 3]);
    in_time(holds).await.unwrap().unwrap();

    for policy in [BodyPolicy::on_connection(), BodyPolicy::on_connection().hold(), BodyPolicy::in_pool()] {
        let handler = service_fn(|_: Request<Body>| async {
            let frames = stream::iter(["one", "two"]).then(|frame| async move {
                tokio::task::yield_now().await;
                Ok::<_, Infallible>(Bytes::from(frame))
            });
            Ok::<_, Infallible>(Response::new(Body::from_stream(frames)))
        });
        let service = PoolLayer::<Cpu>::new(&pools).body(policy).layer(handler);
        let response = in_time(service.oneshot(Request::new(Body::empty()))).await.unwrap();
        assert_eq!(in_time(response.into_body().collect()).await.unwrap().to_bytes(), "onetwo");
    }
}
