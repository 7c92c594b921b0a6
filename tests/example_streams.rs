//! The responses that the example server streams: an export, events of a model, and compressed files. Each one when its
//! client reads, stalls or leaves, and when the server drains or is killed.

#![allow(clippy::unwrap_used, reason = "the functions that tests share are tests too")]

#[path = "example/narrow.rs"]
mod narrow;
#[path = "example/process.rs"]
mod process;

use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tower::{Service, ServiceExt};
use tower_http::decompression::Decompression;

use self::process::{Example, Folder};

const NOTES: i64 = 600;
const LINES: usize = 1500;

/// A route whose response is longer than what the pool and the connection buffer.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Route {
    Export,
    Classify,
    Files,
}

const ROUTES: [Route; 3] = [Route::Export, Route::Classify, Route::Files];

impl Route {
    const fn pool(self) -> &'static str {
        match self {
            Self::Export => "db",
            Self::Classify => "inference",
            Self::Files => "io",
        }
    }

    fn request(self) -> Request<Full<Bytes>> {
        let request = match self {
            Self::Export => Request::get("http://example/v1/notes/export"),
            Self::Classify => Request::post("http://example/v1/classify/stream"),
            Self::Files => Request::get("http://example/files/numbers.txt").header("accept-encoding", "gzip"),
        };
        let line = || Bytes::from(format!("{}\n", json!({ "input": vec![0; 64] })));
        let body = if self == Self::Classify { line().repeat(LINES).into() } else { Bytes::new() };
        request.body(Full::new(body)).unwrap()
    }

    /// Whether nothing of the response is missing.
    fn is_whole(self, body: &[u8]) -> bool {
        let text = || String::from_utf8(body.to_vec()).unwrap();
        match self {
            Self::Export => text().lines().count() == 1 + usize::try_from(NOTES).unwrap(),
            Self::Classify => text().ends_with(&format!("event: end\ndata: {{\"lines\":{LINES}}}\n\n")),
            // The sum of the length, at the end of a gzip file.
            Self::Files => body.ends_with(&u32::try_from(numbers().len()).unwrap().to_le_bytes()),
        }
    }
}

/// A response of which the client has taken the first frame.
struct Begun {
    first: Bytes,
    body: Incoming,
    /// Without it, the client's connection would end.
    _sender: hyper::client::conn::http2::SendRequest<Full<Bytes>>,
}

/// A text that gzip halves.
fn numbers() -> String {
    let mut state = 1_u64;
    let number = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        format!("{state:020}\n")
    };
    (0..40_000).map(number).collect()
}

/// A server with files and notes.
async fn start(folder: &Folder) -> Example {
    std::fs::write(folder.path("files/numbers.txt"), numbers()).unwrap();
    let example = Example::start(folder).await;
    let mut database = rusqlite::Connection::open(folder.path("notes.db")).unwrap();
    let transaction = database.transaction().unwrap();
    for number in 0..NOTES {
        transaction
            .execute("INSERT INTO notes (text) VALUES (?1)", [format!("{number} {}", "word ".repeat(200))])
            .unwrap();
    }
    transaction.commit().unwrap();
    example
}

/// Sends a request on a connection whose client takes 1 KiB of the response at a time, and returns after the first
/// frame.
async fn begin(example: &Example, route: Route) -> Begun {
    try_begin(example, route).await.unwrap()
}

/// The same; an error if the body ends before its first frame.
async fn try_begin(example: &Example, route: Route) -> Result<Begun, hyper::Error> {
    let mut sender = narrow::connect(example).await;
    let mut response = in_time(sender.send_request(route.request())).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK, "{route:?}");
    let first = in_time(response.body_mut().frame()).await.unwrap()?.into_data().unwrap();
    Ok(Begun { first, body: response.into_body(), _sender: sender })
}

impl Begun {
    /// All bytes of the body; an error if it does not end well.
    async fn read(self) -> Result<Vec<u8>, hyper::Error> {
        let rest = in_time(self.body.collect()).await?.to_bytes();
        Ok([self.first, rest].concat())
    }
}

async fn in_time<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), future).await.expect("it hangs")
}

/// Waits until the pool of a route has these numbers.
async fn until(example: &Example, route: Route, right: impl Fn(&Value) -> bool) {
    let client = example.client();
    let mut last = Value::Null;
    let becomes = async {
        loop {
            last = client.get("/health/thread-pools").await.ok()["pools"][route.pool()].take();
            if right(&last) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let became = tokio::time::timeout(Duration::from_secs(30), becomes).await;
    assert!(became.is_ok(), "{route:?}: {last}");
}

#[tokio::test]
async fn an_export_has_every_note_in_its_order_whatever_is_in_it() {
    let folder = Folder::new();
    let example = Example::start(&folder).await;
    let client = example.client();
    let empty = client.get("/v1/notes/export").await;
    assert_eq!((empty.status, empty.text().as_str()), (StatusCode::OK, "id,created_at,text\r\n"));
    let texts = ["plain", "one, two", "\"quoted\"", "two\nlines", "=1+1", "äöü 漢字"];
    for text in texts {
        assert_eq!(client.post("/v1/notes", &json!({ "text": text })).await.status, StatusCode::CREATED);
    }
    let export = client.get("/v1/notes/export").await;
    assert_eq!(export.header("content-type"), "text/csv; charset=utf-8; header=present");
    assert_eq!(export.header("content-disposition"), "attachment; filename=\"notes.csv\"");
    let mut expected = "id,created_at,text\r\n".to_owned();
    for (id, text) in (1..).zip(texts) {
        let note = client.get(&format!("/v1/notes/{id}")).await.ok();
        let created_at = note["created_at"].as_str().unwrap();
        expected.push_str(&format!("{id},{created_at},\"{}\"\r\n", text.replace('"', "\"\"")));
    }
    assert_eq!(export.text(), expected);
    example.stop().await;
}

#[tokio::test]
async fn each_line_of_inputs_has_its_event_also_if_it_is_wrong() {
    let folder = Folder::new();
    let example = Example::start(&folder).await;
    let client = example.client();
    let image = json!({ "input": vec![0; 64] }).to_string();
    let body = format!("{image}\n\n{{\"input\": [1, 2]}}\r\nno JSON\n{image}");
    let send = async |body: String| client.send(http::Method::POST, "/v1/classify/stream", "", body.into()).await;
    let answer = send(body).await;
    assert_eq!(answer.header("content-type"), "text/event-stream");
    let text = answer.text();
    let events: Vec<Vec<&str>> = text.split_terminator("\n\n").map(|event| event.lines().collect()).collect();
    let names: Vec<_> = events.iter().map(|event| (event[0], event.last().copied().unwrap())).collect();
    assert_eq!(
        names.iter().map(|(name, _)| *name).collect::<Vec<_>>(),
        ["event: prediction", "event: problem", "event: problem", "event: prediction", "event: end"]
    );
    let ids: Vec<_> = text.lines().filter(|line| line.starts_with("id: ")).collect();
    assert_eq!(ids, ["id: 1", "id: 3", "id: 4", "id: 5"], "the blank line counts and has no event");
    let data = |event: usize| {
        let line = events[event].iter().find_map(|line| line.strip_prefix("data: ")).unwrap();
        serde_json::from_str::<Value>(line).unwrap()
    };
    assert_eq!(data(0), data(3));
    let whole = client.post("/v1/classify", &json!({ "inputs": [vec![0; 64]] })).await.ok();
    assert_eq!(data(0), whole["predictions"][0]);
    assert!(data(1)["detail"].as_str().unwrap().starts_with("input: it has 2 numbers"), "{}", data(1));
    assert_eq!((data(2)["status"].clone(), data(4)), (json!(400), json!({ "lines": 4 })));

    let nothing = send("\n \n".to_owned()).await;
    assert_eq!(nothing.status, StatusCode::BAD_REQUEST);
    assert!(nothing.text().contains("no line"), "{nothing:?}");
    example.stop().await;
}

#[tokio::test]
async fn files_are_compressed_for_clients_that_say_so() {
    let folder = Folder::new();
    let example = start(&folder).await;
    let client = example.client();
    let plain = client.get("/files/numbers.txt").await;
    assert_eq!((plain.header("content-encoding"), plain.text()), ("", numbers()));

    let http = hyper_util::client::legacy::Client::builder(TokioExecutor::new()).build_http();
    let mut service = Decompression::new(http);
    let uri = format!("http://{}/files/numbers.txt", example.address());
    let request = Request::get(uri).body(Full::<Bytes>::default()).unwrap();
    let response = service.ready().await.unwrap().call(request).await.unwrap();
    let body = in_time(response.into_body().collect()).await.unwrap().to_bytes();
    assert_eq!(body, numbers());
    example.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_client_gets_everything_and_its_request_stays_in_flight() {
    let folder = Folder::new();
    let example = start(&folder).await;
    for route in ROUTES {
        let response = begin(&example, route).await;
        // The files' bodies are polled in the pool without a permit.
        let permits = u8::from(route != Route::Files);
        until(&example, route, |pool| pool["in_flight"] == 1 && pool["permits_in_use"] == permits).await;
        until(&example, route, |pool| pool["streams"]["open"] == 1).await;
        assert!(route.is_whole(&response.read().await.unwrap()), "{route:?}");
        until(&example, route, |pool| pool["in_flight"] == 0 && pool["streams"]["open"] == 0).await;
        until(&example, route, |pool| pool["results"]["ok"] == pool["submitted"]).await;
    }
    example.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_leaves_frees_the_permit() {
    let folder = Folder::new();
    let example = start(&folder).await;
    for route in ROUTES {
        let response = begin(&example, route).await;
        until(&example, route, |pool| pool["in_flight"] == 1).await;
        drop(response);
        until(&example, route, |pool| pool["in_flight"] == 0 && pool["streams"]["open"] == 0).await;
        until(&example, route, |pool| pool["results"]["cancelled"] == 1).await;
    }
    example.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_stalls_gets_no_clean_end_and_frees_the_permit() {
    let folder = Folder::new();
    let mut config = folder.config();
    for (pool, workers) in [("io", 50), ("inference", 20), ("db", 25)] {
        let (short, long) = (
            format!("{pool}_workers: {workers}"),
            format!("{pool}: {{workers: {workers}, body: {{stall_timeout: 300ms}}}}"),
        );
        assert!(config.contains(&short));
        config = config.replace(&short, &long);
    }
    folder.configure(&config);
    let example = start(&folder).await;
    for route in ROUTES {
        // On a slow machine, the client may have stalled before it takes the first frame.
        let mut stalled = 0;
        let response = loop {
            let response = try_begin(&example, route).await;
            stalled += 1;
            until(&example, route, |pool| pool["in_flight"] == 0 && pool["results"]["stalled"] == stalled).await;
            if let Ok(response) = response {
                break response;
            }
        };
        assert!(response.read().await.is_err(), "{route:?}: the end is faked");
        until(&example, route, |pool| pool["streams"]["open"] == 0 && pool["streams"]["buffered_bytes"] == 0).await;
    }
    example.stop().await;
}

/// Over HTTP/1 the stalled response occupies its connection, and hyper waits for the socket.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_stalls_over_http_1_loses_its_connection() {
    let folder = Folder::new();
    let config = folder.config().replace("db_workers: 25", "db: {workers: 25, body: {stall_timeout: 300ms}}");
    folder.configure(&config);
    let example = start(&folder).await;
    let mut database = rusqlite::Connection::open(folder.path("notes.db")).unwrap();
    let transaction = database.transaction().unwrap();
    for _ in 0..400 {
        transaction.execute("INSERT INTO notes (text) VALUES (?1)", ["x".repeat(60_000)]).unwrap();
    }
    transaction.commit().unwrap();

    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut client = socket.connect(example.address()).await.unwrap();
    client.write_all(b"GET /v1/notes/export HTTP/1.1\r\nhost: example\r\n\r\n").await.unwrap();
    let stalled = |pool: &Value| pool["results"]["stalled"] == 1 && pool["streams"]["open"] == 0;
    until(&example, Route::Export, stalled).await;
    in_time(async {
        while client.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    example.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_waits_for_streams_that_are_read() {
    let folder = Folder::new();
    let mut example = start(&folder).await;
    let mut responses = Vec::new();
    for route in ROUTES {
        responses.push((route, begin(&example, route).await));
        until(&example, route, |pool| pool["in_flight"] == 1).await;
    }
    example.terminate();
    example.closed_its_port().await;
    for (route, response) in responses {
        assert!(route.is_whole(&response.read().await.unwrap()), "{route:?}");
    }
    assert_eq!(example.exit_code().await, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_is_no_clean_end_and_leaves_the_notes_whole() {
    let folder = Folder::new();
    let mut example = start(&folder).await;
    let mut responses = Vec::new();
    for route in ROUTES {
        responses.push((route, begin(&example, route).await));
    }
    example.kill().await;
    for (route, response) in responses {
        assert!(response.read().await.is_err(), "{route:?}: the end is faked");
    }
    let example = Example::start(&folder).await;
    for route in ROUTES {
        let response = begin(&example, route).await;
        assert!(route.is_whole(&response.read().await.unwrap()), "{route:?}");
    }
    example.stop().await;
}
