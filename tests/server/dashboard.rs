//! The dashboard, asked by real clients: its page, its events, and their end.

use std::cmp::Ordering;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use axum::Router;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{ACCEPT, ALLOW, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tower::ServiceExt;
use tower_offload::config::Config;
use tower_offload::{Cpu, Dashboard, Io, PoolStats, Pools};

use crate::harness::{TestServer, soon};

/// The events of one viewer.
struct Viewer {
    body: Incoming,
    text: String,
}

/// An event: its type and its data.
#[derive(Debug, PartialEq)]
struct Event(String, String);

impl Viewer {
    /// A viewer over HTTP/1.
    async fn http1(server: &TestServer) -> Self {
        let io = TokioIo::new(server.connect().await);
        let (mut client, connection) = soon(http1::handshake(io)).await.unwrap();
        tokio::spawn(connection);
        Self::of(soon(client.send_request(watch("/pools"))).await.unwrap())
    }

    /// A viewer over HTTP/2.
    async fn http2(server: &TestServer) -> Self {
        let (mut client, _) = server.http2(|_| {}).await;
        let request = watch(&format!("http://{}/pools/", server.address));
        Self::of(soon(client.send_request(request)).await.unwrap())
    }

    fn of(response: Response<Incoming>) -> Self {
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()[CONTENT_TYPE], "text/event-stream");
        Self { body: response.into_body(), text: String::new() }
    }

    /// The next event; `None` at the end.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some((block, rest)) = self.text.split_once("\n\n") {
                let (block, rest) = (block.to_owned(), rest.to_owned());
                self.text = rest;
                let field = |name| {
                    block.lines().find_map(|line| line.strip_prefix(name)).map(|text: &str| text.trim().to_owned())
                };
                if let Some(data) = field("data:") {
                    return Some(Event(field("event:").unwrap_or_default(), data));
                }
                continue;
            }
            let data = soon(self.body.frame()).await?.unwrap().into_data().unwrap();
            self.text.push_str(std::str::from_utf8(&data).unwrap());
        }
    }

    /// The next frame.
    async fn frame(&mut self) -> Value {
        let Event(kind, data) = self.next().await.expect("the events go on");
        assert_eq!(kind, "");
        serde_json::from_str(&data).unwrap()
    }

    async fn history(&mut self) -> Value {
        let Event(kind, data) = self.next().await.expect("the events begin");
        assert_eq!(kind, "history");
        serde_json::from_str(&data).unwrap()
    }
}

fn watch(uri: &str) -> Request<Empty<Bytes>> {
    Request::get(uri).header("host", "localhost").header(ACCEPT, "text/event-stream").body(Empty::new()).unwrap()
}

fn app(pools: &Pools) -> Router {
    Router::new().nest_service("/pools", Dashboard::new(pools))
}

async fn start(pools: &Pools) -> TestServer {
    TestServer::with_pools(app(pools), pools, |_| {}).await
}

async fn ask(app: &Router, method: Method, path: &str) -> (http::response::Parts, String) {
    let request = Request::builder().method(method).uri(path).body(axum::body::Body::empty()).unwrap();
    let (head, body) = app.clone().oneshot(request).await.unwrap().into_parts();
    (head, String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap())
}

async fn page(pools: &Pools) -> String {
    ask(&app(pools), Method::GET, "/pools").await.1
}

/// The text between the first `from` and the next `to`.
fn between<'a>(text: &'a str, from: &str, to: &str) -> &'a str {
    text.split_once(from).unwrap().1.split_once(to).unwrap().0
}

fn hash(text: &str) -> String {
    format!("'sha256-{}'", STANDARD.encode(ring::digest::digest(&ring::digest::SHA256, text.as_bytes())))
}

/// The cells of a pool of a frame.
fn cells(frame: &Value, pool: usize) -> Vec<String> {
    frame["pools"][pool]["cells"].as_array().unwrap().iter().map(|cell| cell.as_str().unwrap().to_owned()).collect()
}

/// A function that does not return before the sender is used or dropped, in the pool `cpu`.
fn hold(pools: &Pools) -> mpsc::Sender<()> {
    let (release, held) = mpsc::channel::<()>();
    let (begins, begun) = mpsc::channel();
    let task = move || {
        begins.send(()).unwrap();
        held.recv().ok();
    };
    drop(pools.submit_to_pool(Cpu, task).unwrap());
    begun.recv().unwrap();
    release
}

fn verbose(on: bool) -> Pools {
    let mut config = Config::default();
    config.general.verbose = on;
    Pools::new(&config).unwrap()
}

// === the page ===

#[tokio::test]
async fn the_policy_allows_the_style_and_the_script_of_the_page_and_nothing_else() {
    let pools = Pools::default();
    let (head, page) = ask(&app(&pools), Method::GET, "/pools").await;
    let policy = head.headers[CONTENT_SECURITY_POLICY].to_str().unwrap();
    let expected = |kind: &str, from, to| {
        let source = format!("{kind}-src {}", hash(between(&page, from, to)));
        assert!(policy.split("; ").any(|directive| directive == source), "src/dashboard/page.rs needs {source}");
    };
    expected("script", "<script>", "</script>");
    expected("style", "<style>", "</style>");
    assert!(policy.starts_with("default-src 'none'; "), "{policy}");
    assert!(!policy.contains("unsafe") && !policy.contains('*'), "{policy}");
    // No other style or script.
    assert_eq!((page.matches("<script").count(), page.matches("<style").count()), (1, 1));
    assert!(!page.contains(" style=") && !page.contains(" onclick="));
}

#[tokio::test]
async fn the_page_has_everything_inside_and_is_small() {
    let page = page(&Pools::default()).await;
    assert!(page.len() <= 40_000, "{} bytes", page.len());
    let references = ["http:", "https:", " src=", "url(", "@import", "import(", "fetch(", "WebSocket"];
    for reference in references {
        assert!(!page.contains(reference), "{reference}");
    }
    let links: Vec<_> = page.split("href=\"").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
    assert!(
        links.iter().all(|link| link.is_empty() || link.starts_with('#') || link.starts_with("data:")),
        "{links:?}"
    );
}

#[tokio::test]
async fn the_page_has_the_numbers_of_the_moment_without_its_script() {
    let pools = Pools::default();
    let release = hold(&pools);
    let page = page(&pools).await;
    let (markup, _) = page.split_once("<script>").unwrap();
    let row = between(markup, "<a href=\"#pool-1\">cpu</a>", "</tr>");
    assert!(row.contains(">working</td>"), "{row}");
    assert!(markup.contains("<dd class=\"rest\" data-c=\"7\">1 of 30 permits</dd>"), "{markup}");
    drop(release);
}

#[tokio::test]
async fn it_is_read_only_and_has_one_path() {
    let app = app(&Pools::default());
    for path in ["/pools", "/pools/"] {
        for method in [Method::POST, Method::PUT, Method::DELETE, Method::OPTIONS] {
            let (head, _) = ask(&app, method, path).await;
            assert_eq!(
                (head.status, &head.headers[ALLOW]),
                (StatusCode::METHOD_NOT_ALLOWED, &"GET, HEAD".parse().unwrap())
            );
        }
        let (get, page) = ask(&app, Method::GET, path).await;
        let (head, nothing) = ask(&app, Method::HEAD, path).await;
        assert_eq!((get.status, head.status, nothing.as_str()), (StatusCode::OK, StatusCode::OK, ""));
        assert_eq!(get.headers[CONTENT_LENGTH], page.len().to_string().as_str());
        assert_eq!(get.headers.len(), head.headers.len());
    }
    assert_eq!(ask(&app, Method::GET, "/pools/other").await.0.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_question_for_the_head_of_the_events_ends() {
    let service = Dashboard::new(&Pools::default());
    let request = Request::head("/").header(ACCEPT, "text/html;q=0.1, Text/Event-Stream;q=0.9").body(()).unwrap();
    let response = service.oneshot(request).await.unwrap();
    assert_eq!(response.headers()[CONTENT_TYPE], "text/event-stream");
    assert!(soon(response.into_body().collect()).await.unwrap().to_bytes().is_empty());
}

#[tokio::test]
async fn a_client_that_refuses_events_gets_the_page() {
    for refusal in ["text/event-stream;q=0, */*", "text/html, text/event-stream; charset=utf-8; Q=0.000"] {
        let request = Request::get("/").header(ACCEPT, refusal).body(()).unwrap();
        let response = Dashboard::new(&Pools::default()).oneshot(request).await.unwrap();
        assert_eq!(response.headers()[CONTENT_TYPE], "text/html; charset=utf-8", "{refusal}");
    }
}

#[tokio::test]
async fn disabled_pools_have_a_page() {
    assert!(page(&Pools::disabled()).await.contains("There are no pools"));
}

// === the events ===

/// The number of the tick that a frame or a history is of.
fn tick_of(shown: &Value) -> u64 {
    shown["n"].as_u64().unwrap()
}

/// The first frame that is so: the next one that is made after this call, unless one that is on its way is so already.
async fn within_a_tick(viewer: &mut Viewer, server: &TestServer, is_so: impl Fn(&[String]) -> bool) -> Value {
    let latest = tick_of(&Viewer::http1(server).await.history().await);
    loop {
        let frame = viewer.frame().await;
        if is_so(&cells(&frame, 1)) {
            return frame;
        }
        assert!(tick_of(&frame) <= latest, "it was made after tick {latest}: {frame}");
    }
}

/// Runs tasks while somebody looks, and compares what the page shows with the stats.
async fn the_frames_follow_the_stats(viewer: &mut Viewer, server: &TestServer, pools: &Pools) {
    let history = viewer.history().await;
    let first = viewer.frame().await;
    assert_eq!(history["n"], first["n"]);
    assert_eq!(history["pools"].as_array().unwrap().len(), 5);

    let release = hold(pools);
    let PoolStats { in_flight, active_threads, workers, .. } = pools.get(Cpu).unwrap().stats();
    let mut frame = within_a_tick(viewer, server, |cells| {
        (cells[6].as_str(), cells[9].as_str()) == (&in_flight.to_string(), &active_threads.to_string())
            && cells[10].ends_with(&format!("{workers} of 30 threads"))
    })
    .await;
    // It has begun, and may not have come to its wait.
    while cfg!(target_os = "linux") && cells(&frame, 1)[10].starts_with("1 runnable · 0 blocked · ") {
        frame = viewer.frame().await;
    }
    if cfg!(target_os = "linux") {
        assert!(cells(&frame, 1)[10].starts_with("0 runnable · 1 blocked · "), "{frame}");
    }
    assert_eq!(frame["points"][1][3], 1.0, "{frame}");

    drop(release);
    for _ in 0..3 {
        pools.run_in_pool(Cpu, || ()).await.unwrap();
    }
    let _panicked = pools.run_in_pool(Cpu, || panic!("a test of panics")).await;
    let frame = within_a_tick(viewer, server, |cells| cells[6] == "0" && cells[18] == "failing").await;
    assert_eq!(frame["pools"][1]["more"][0][1], "4 ok · 1 panicked");
    assert_eq!(frame["summary"], "cpu: failing");
    // The points of the tick in which they ended. A frame may be one of a later tick.
    let history = Viewer::http1(server).await.history().await;
    let some = |number: usize, is_so: fn(f64) -> bool| {
        history["pools"][1][number].as_array().unwrap().iter().filter_map(Value::as_f64).any(is_so)
    };
    assert!(some(6, |ended| ended > 0.0) && some(0, |wait| wait > 0.0), "{history}");
    assert_eq!(frame["points"][1].as_array().unwrap().len(), history["pools"][1].as_array().unwrap().len());
}

#[tokio::test]
async fn the_numbers_are_those_of_the_stats_within_one_tick_over_http1() {
    let pools = Pools::default();
    let server = start(&pools).await;
    the_frames_follow_the_stats(&mut Viewer::http1(&server).await, &server, &pools).await;
}

#[tokio::test]
async fn the_numbers_are_those_of_the_stats_within_one_tick_over_http2() {
    let pools = Pools::default();
    let server = start(&pools).await;
    the_frames_follow_the_stats(&mut Viewer::http2(&server).await, &server, &pools).await;
}

#[tokio::test]
async fn viewers_share_one_sampler_and_a_late_one_gets_the_history() {
    let server = start(&Pools::default()).await;
    let mut first = Viewer::http1(&server).await;
    first.history().await;
    // On a slow machine, a tick may be missed.
    let ticks = [first.frame().await, first.frame().await, first.frame().await].map(|frame| tick_of(&frame));
    assert!(ticks[0] < ticks[1] && ticks[1] < ticks[2], "{ticks:?}");
    let mut second = Viewer::http2(&server).await;
    let history = second.history().await;
    let n = tick_of(&history);
    assert!(n >= ticks[2]);
    let points = history["pools"][4][2].as_array().unwrap().len() as u64;
    assert_eq!(points, n, "there is a point for each tick");
    assert_eq!(tick_of(&second.frame().await), n);
    // Either may be behind.
    let mut next = [first.frame().await, second.frame().await];
    loop {
        match tick_of(&next[0]).cmp(&tick_of(&next[1])) {
            Ordering::Less => next[0] = first.frame().await,
            Ordering::Greater => next[1] = second.frame().await,
            Ordering::Equal => break,
        }
    }
    assert_eq!(next[0], next[1]);
}

#[tokio::test]
async fn a_drain_ends_the_events_and_they_delay_no_shutdown() {
    let pools = Pools::default();
    let mut server = start(&pools).await;
    let mut viewers = [Viewer::http1(&server).await, Viewer::http2(&server).await];
    for viewer in &mut viewers {
        viewer.history().await;
        viewer.frame().await;
    }
    let begun = Instant::now();
    server.stop();
    for viewer in &mut viewers {
        let mut last = viewer.next().await.unwrap();
        while let Some(next) = viewer.next().await {
            last = next;
        }
        assert_eq!(last, Event("drain".to_owned(), String::new()));
    }
    let report = server.report().await;
    assert_eq!((report.connections_cut_off, report.requests_cut_off), (0, 0), "{report:?}");
    assert!(begun.elapsed() < Duration::from_secs(20), "it waited for the timeout");
}

#[tokio::test]
async fn no_events_begin_during_a_drain_but_the_page_is_there() {
    let pools = Pools::default();
    let app = app(&pools);
    pools.announce_drain();
    let request = Request::get("/pools").header(ACCEPT, "text/event-stream").body(axum::body::Body::empty()).unwrap();
    assert_eq!(app.clone().oneshot(request).await.unwrap().status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(ask(&app, Method::GET, "/pools").await.0.status, StatusCode::OK);
}

// === the tasks ===

#[tokio::test]
async fn running_tasks_are_listed_oldest_first_with_what_their_threads_do() {
    let pools = verbose(true);
    let release = hold(&pools);
    let awaits = pools.submit_to_pool(Io, std::future::pending::<()>()).unwrap();
    while pools.get(Io).unwrap().stats().active_tasks.first().is_none_or(|task| task.thread.is_some()) {
        tokio::task::yield_now().await;
    }
    let server = start(&pools).await;
    let mut viewer = Viewer::http1(&server).await;
    viewer.history().await;
    let mut frame = viewer.frame().await;
    // It has begun, and may not have come to its wait.
    while frame["tasks"][0]["does"] == "computes" {
        frame = viewer.frame().await;
    }
    let tasks = frame["tasks"].as_array().unwrap();
    let shown: Vec<_> =
        tasks.iter().map(|task| (task["task"].as_str().unwrap(), task["does"].as_str().unwrap())).collect();
    if cfg!(target_os = "linux") {
        // Where the kernel hides the function that a thread waits in, the thread is blocked.
        assert!(shown[0].1.starts_with("waits for a lock") || shown[0].1 == "is blocked", "{shown:?}");
        assert_eq!(shown[1].1, "awaits");
    }
    assert_eq!([shown[0].0, shown[1].0], ["cpu #1", "io #1"]);
    assert!(tasks[0]["function"].as_str().unwrap().starts_with("tests/server/dashboard.rs:"), "{tasks:?}");
    assert!(tasks.iter().all(|task| task["stuck"] == false));
    drop((release, awaits));
}

#[tokio::test]
async fn functions_are_not_shown_unless_verbose_is_on() {
    let pools = verbose(false);
    let release = hold(&pools);
    let page = page(&pools).await;
    assert!(!page.contains("dashboard.rs:") && page.contains("while general.verbose is on"));
    drop(release);
}

/// The page, and the history and first frame of the events, as a stranger reads them.
async fn seen_by_a_stranger(pools: &Pools) -> String {
    let server = start(pools).await;
    let mut viewer = Viewer::http1(&server).await;
    let [Event(_, history), Event(_, frame)] = [viewer.next().await.unwrap(), viewer.next().await.unwrap()];
    [page(pools).await, history, frame].concat()
}

#[tokio::test]
async fn no_query_header_body_or_panic_is_shown_and_no_path_unless_verbose_is_on() {
    for is_verbose in [true, false] {
        let pools = verbose(is_verbose);
        let (begins, mut begun) = tokio::sync::mpsc::unbounded_channel();
        let (release, held) = tokio::sync::watch::channel(());
        let holds = move |body: Bytes| {
            let (begins, mut held) = (begins.clone(), held.clone());
            async move {
                begins.send(()).unwrap();
                let _ = held.changed().await;
                body
            }
        };
        let panics = |body: Bytes| async move {
            assert!(body.is_empty(), "the panic has {body:?}");
        };
        let app = Router::new()
            .route("/accounts/{id}", axum::routing::post(holds))
            .route("/panics", axum::routing::post(panics))
            .layer(tower_offload::PoolLayer::<Cpu>::new(&pools));
        let request = |path: &str| {
            let request = Request::post(format!("{path}?token=SECRET")).header("authorization", "Bearer SECRET");
            app.clone().oneshot(request.header("cookie", "id=SECRET").body(axum::body::Body::from("SECRET")).unwrap())
        };
        assert_eq!(request("/panics").await.unwrap().status(), StatusCode::INTERNAL_SERVER_ERROR);
        let running = tokio::spawn(request("/accounts/7"));
        soon(begun.recv()).await.unwrap();

        let seen = seen_by_a_stranger(&pools).await;
        assert!(seen.contains("1 panicked"), "{seen}");
        assert!(!seen.contains("SECRET") && !seen.contains("token"), "{seen}");
        assert_eq!(seen.contains("POST /accounts/7"), is_verbose, "{seen}");
        drop(release);
        soon(running).await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn routes_that_hold_a_thread_of_the_runtime_are_listed_while_verbose_is_on() {
    for is_verbose in [true, false] {
        let pools = verbose(is_verbose);
        // Longer than a poll that is certain to be long: a wait for a core may make it seem shorter.
        let blocks = axum::routing::get(|| async { std::thread::sleep(Duration::from_millis(300)) });
        let observe = tower_offload::PoolLayer::observe(&pools);
        let observed = Router::new().route("/report", blocks).layer(observe.name_by(|_: &Request<_>| Some("<report>")));
        let before = page(&pools).await;
        assert!(before.contains("id=\"observed\" aria-labelledby=\"holding\" hidden"), "nothing is listed yet");
        assert_eq!(ask(&observed, Method::GET, "/report").await.0.status, StatusCode::OK);

        let page = page(&pools).await;
        let listed = between(&page, "<tbody id=\"slow\">", "</tbody>");
        let server = start(&pools).await;
        let mut viewer = Viewer::http1(&server).await;
        viewer.history().await;
        let frame = viewer.frame().await;
        if is_verbose {
            assert!(listed.contains("GET &lt;report&gt;</th><td class=\"n\">1</td>"), "{listed}");
            assert!(!page.contains("aria-labelledby=\"holding\" hidden"));
            assert_eq!(
                (&frame["slow"][0]["route"], &frame["slow"][0]["long_polls"]),
                (&"GET <report>".into(), &"1".into())
            );
        } else {
            assert_eq!((listed, &frame["slow"]), ("", &Value::Array(Vec::new())));
            assert!(!page.contains("report") && page.contains("aria-labelledby=\"holding\" hidden"));
        }
    }
}
