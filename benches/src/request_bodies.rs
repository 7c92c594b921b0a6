//! Small request bodies: read before the queue, or by the handler.

use std::thread;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::Request;
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use tower_offload::body::{BodyRead, ReadBody};
use tower_offload::{Cpu, PoolLayer};

use crate::child::Process;
use crate::client::Load;
use crate::harness::{Case, Column, Harness, Scenario, Target};
use crate::http::port;
use crate::server::{self, BARE};
use crate::ways::{self, Speed, Task};

pub const PART: &str = "request bodies";

const READ_FIRST: &str = "ours, read_body";
const UNREAD: &str = "ours, read by the handler";
const MIDDLEWARE: &str = "ours, read by middleware";

const LENGTH: usize = 1024;
const CLIENTS: usize = 64;
const WARM_UP: Duration = Duration::from_millis(100);
const SPAN: Duration = Duration::from_secs(1);

/// Serves handlers that take the whole body and then compute.
pub fn play(kind: &str, speed: Speed) {
    let runtime = ways::runtime();
    let handler = |task: Task| {
        post(async move |body: Bytes| {
            assert_eq!(body.len(), LENGTH);
            task.run();
            "ok"
        })
    };
    let router = Router::new()
        .route("/0us", handler(speed.task(Duration::ZERO)))
        .route("/20us", handler(speed.task(Duration::from_micros(20))));
    let layer = || PoolLayer::<Cpu>::new(&ways::pools(ways::default_cpu()));
    let router = match kind {
        BARE => router,
        READ_FIRST => router.layer(layer().read_body(ReadBody::new(1 << 20))),
        UNREAD => router.layer(layer()),
        MIDDLEWARE => router.layer(layer()).layer(from_fn(read_first)),
        other => panic!("there is no server `{other}`"),
    };
    server::serve(&runtime, router, None);
}

/// What an application without `read_body` would write.
async fn read_first(request: Request, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    match tokio::time::timeout(Duration::from_secs(30), to_bytes(body, 1 << 20)).await {
        Ok(Ok(bytes)) => {
            parts.extensions.insert(BodyRead);
            next.run(Request::from_parts(parts, Body::from(bytes))).await
        }
        _ => StatusCode::BAD_REQUEST.into_response(),
    }
}

pub fn run(harness: &mut Harness, speed: Speed) {
    for path in ["/0us", "/20us"] {
        let name = format!("request bodies of 1 KB, handler {path}");
        if !harness.wants(&name) {
            continue;
        }
        let span = harness.span(SPAN);
        let case = |kind: &'static str| {
            let mut process = Process::start(PART, kind, speed);
            let port = port(&mut process);
            let sample = move || {
                let _running = &process;
                vec![throughput(port, path, span)]
            };
            Case { name: kind, sample: Box::new(sample) }
        };
        harness.run(Scenario {
            name,
            columns: &[Column { name: "throughput", unit: "requests/s" }],
            cases: [READ_FIRST, UNREAD, MIDDLEWARE, BARE].map(case).into(),
            baseline: READ_FIRST,
            target: Some(Target {
                text: "at least 0.97 of the same read by the handler",
                reached: |medians| medians.ratio_to(UNREAD, 0) >= 0.97,
            }),
        });
    }
}

#[expect(clippy::cast_precision_loss, reason = "no server answers 2^53 requests")]
fn throughput(port: u16, path: &str, span: Duration) -> f64 {
    let head = format!("POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {LENGTH}\r\n\r\n");
    let load = Load::start_with(port, [head.as_bytes(), &[b'x'; LENGTH]].concat(), CLIENTS);
    thread::sleep(WARM_UP);
    let (before, began) = (load.answered(), Instant::now());
    thread::sleep(span);
    (load.answered() - before) as f64 / began.elapsed().as_secs_f64()
}
