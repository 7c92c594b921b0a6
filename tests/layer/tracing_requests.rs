//! What a layer tells about each request: `Server-Timing`, and the spans of the queue and of the run.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::Request;
use tokio::runtime::Builder;
use tower::{Layer, ServiceExt, service_fn};
use tower_offload::{Cpu, PoolConfig, PoolLayer, Pools};
use tracing::Instrument;
use tracing::span::{Attributes, Id};
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;

use crate::fixtures::{answer, pools_of, request, stats_of};

fn after(millis: u64) -> impl crate::fixtures::TextService {
    service_fn(move |_: Request<String>| async move {
        std::thread::sleep(Duration::from_millis(millis));
        Ok::<_, std::convert::Infallible>(http::Response::new(String::new()))
    })
}

/// The two numbers of the header, in milliseconds.
fn times(header: &str) -> (f64, f64) {
    let (queue, run) = header.split_once(", ").expect("there are two");
    let number = |part: &str, name: &str| part.strip_prefix(name).expect("its name").parse().expect("a number");
    (number(queue, "queue;dur="), number(run, "run;dur="))
}

#[tokio::test]
async fn a_response_tells_how_long_its_request_was_queued_and_ran() {
    let pools = pools_of(1, 10);
    let service = PoolLayer::<Cpu>::new(&pools).server_timing().layer(after(20));
    let first = tokio::spawn(service.clone().oneshot(request("GET", "/")));
    while stats_of(&pools, "cpu").in_flight == 0 {
        tokio::task::yield_now().await;
    }
    let second = answer(service, request("GET", "/")).await;
    let (queue, run) = times(second.headers()["server-timing"].to_str().unwrap());
    assert!(queue > 0.0 && run >= 20.0, "queue {queue}, run {run}");
    let first = first.await.unwrap().unwrap();
    assert!(times(first.headers()["server-timing"].to_str().unwrap()).1 >= 20.0);
}

#[tokio::test]
async fn without_the_option_and_inline_nothing_is_told() {
    let pools = pools_of(1, 10);
    let silent = answer(PoolLayer::<Cpu>::new(&pools).layer(after(0)), request("GET", "/")).await;
    assert!(!silent.headers().contains_key("server-timing"));
    let spans = PoolLayer::<Cpu>::new(&pools).spans().layer(after(0));
    assert!(!answer(spans, request("GET", "/")).await.headers().contains_key("server-timing"));
    let inline = PoolLayer::by_extension(&pools).server_timing().layer(after(0));
    assert!(!answer(inline, request("GET", "/")).await.headers().contains_key("server-timing"));
}

#[tokio::test]
async fn the_option_of_a_branch_is_for_its_own_requests() {
    let pools = pools_of(1, 10);
    let layer = PoolLayer::by_extension(&pools).server_timing().or(PoolLayer::<Cpu>::new(&pools));
    let service = layer.layer(after(0));
    assert!(!answer(service.clone(), request("GET", "/")).await.headers().contains_key("server-timing"));
    let mut chosen = request("GET", "/");
    chosen.extensions_mut().insert(tower_offload::Workload::IO);
    assert!(answer(service, chosen).await.headers().contains_key("server-timing"));
}

/// Notes the opening and the end of each span, as `parent>name`.
#[derive(Clone, Default)]
struct Notes(Arc<Mutex<Vec<String>>>);

impl<S> tracing_subscriber::Layer<S> for Notes
where
    S: tracing::Subscriber + for<'a> LookupSpan<'a>,
{
    fn on_new_span(&self, _attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let span = context.span(id).expect("it is new");
        let parent = span.parent().map_or("none", |parent| parent.name());
        self.0.lock().unwrap().push(format!("{parent}>{} opens", span.name()));
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        let name = context.span(&id).expect("it closes").name();
        self.0.lock().unwrap().push(format!("{name} ends"));
    }
}

#[test]
fn a_request_has_a_span_for_the_queue_and_a_span_for_the_run_within_its_own() {
    let pools = Pools::builder().pool("cpu", PoolConfig::new(1)).build().unwrap();
    let service = PoolLayer::<Cpu>::new(&pools).spans().layer(service_fn(|_: Request<String>| async {
        tokio::task::yield_now().await;
        let span = tracing::Span::current().metadata().map_or("none", tracing::Metadata::name);
        Ok::<_, std::convert::Infallible>(http::Response::new(span.to_owned()))
    }));
    let notes = Notes::default();
    let subscriber = tracing_subscriber::registry().with(notes.clone());
    let body = tracing::subscriber::with_default(subscriber, || {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let ask = async { answer(service, request("GET", "/")).await };
        runtime.block_on(ask.instrument(tracing::info_span!("request"))).into_body()
    });
    assert_eq!(body, "pool.run", "the handler runs in its span");
    let mut notes = notes.0.lock().unwrap().clone();
    notes.retain(|note| note.contains("pool."));
    let expected = ["request>pool.queue opens", "pool.queue ends", "request>pool.run opens", "pool.run ends"];
    assert_eq!(notes, expected);
}
