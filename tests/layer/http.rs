//! Real connections: bare hyper over HTTP/1.1 and HTTP/2, and axum, compared byte for byte with and without the layer.

use std::convert::Infallible;
use std::net::SocketAddr;

use axum::Router;
use axum::body::Body;
use axum::extract::ws::{Message, WebSocketUpgrade};
use axum::extract::{ConnectInfo, Request as AxumRequest};
use axum::response::{IntoResponse, Response as AxumResponse};
use axum::routing::{any, get as on_get, post};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::{ReceiverStream, UnboundedReceiverStream};
use tower::{Layer, service_fn};
use tower_offload::{Cpu, PoolLayer, Pools};

use crate::fixtures::{Gate, client, http2_client, in_time, listen, place, serve, whole};

/// Reads the first frame in the pool, returns the pool's name, and sends everything back as it arrives.
async fn echo(request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let (parts, mut body) = request.into_parts();
    let first = body.frame().await.expect("there is a frame").expect("it is whole");
    let first = http_body_util::Full::new(first.into_data().expect("it is data"));
    let mut response = Response::new(Body::new(Chained { first: Some(first), rest: body }));
    response.headers_mut().insert("place", HeaderValue::try_from(place()).expect("a name"));
    response.headers_mut().insert("trailer", HeaderValue::from_static("checksum"));
    *response.version_mut() = parts.version;
    Ok(response)
}

/// One body, and then another with its trailers.
struct Chained {
    first: Option<http_body_util::Full<Bytes>>,
    rest: Incoming,
}

impl http_body::Body for Chained {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if let Some(mut first) = self.first.take() {
            let frame = std::pin::Pin::new(&mut first).poll_frame(cx);
            return frame.map(|frame| frame.map(|frame| frame.map_err(|never| match never {})));
        }
        std::pin::Pin::new(&mut self.rest).poll_frame(cx).map_err(axum::Error::new)
    }
}

/// Serves `echo` in the pool `cpu` on a bare hyper connection.
async fn serve_echo(http2: bool) -> SocketAddr {
    let (listener, address) = listen().await;
    let service = TowerToHyperService::new(PoolLayer::<Cpu>::new(&Pools::default()).layer(service_fn(echo)));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (io, service) = (TokioIo::new(stream), service.clone());
            if http2 {
                tokio::spawn(
                    hyper::server::conn::http2::Builder::new(TokioExecutor::new()).serve_connection(io, service),
                );
            } else {
                tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(io, service));
            }
        }
    });
    address
}

type Frames = mpsc::UnboundedSender<Frame<Bytes>>;

fn streamed() -> (Frames, Body) {
    let (frames, received) = mpsc::unbounded_channel();
    (frames, Body::new(StreamBody::new(UnboundedReceiverStream::new(received).map(Ok::<_, Infallible>))))
}

#[expect(clippy::unwrap_used, reason = "it is the body of two tests")]
async fn bodies_stream_both_ways_with_trailers(http2: bool) {
    let address = serve_echo(http2).await;
    let client = if http2 { http2_client() } else { client() };
    let (frames, body) = streamed();
    let request = Request::post(format!("http://{address}/"))
        .header("te", "trailers")
        .header("trailer", "checksum")
        .body(body)
        .unwrap();
    let response = tokio::spawn(client.request(request));
    frames.send(Frame::data(Bytes::from_static(b"one"))).unwrap();
    let mut response = in_time(response).await.unwrap().unwrap();
    assert_eq!(response.headers()["place"], "cpu");
    for (sent, expected) in [("two", "one"), ("three", "two"), ("", "three")] {
        // Each frame is sent after the frame before has returned, so no frame is held back.
        let frame = in_time(response.body_mut().frame()).await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), expected);
        if !sent.is_empty() {
            frames.send(Frame::data(Bytes::from(sent))).unwrap();
        }
    }
    let trailers = HeaderMap::from_iter([("checksum".parse().unwrap(), HeaderValue::from_static("abc"))]);
    frames.send(Frame::trailers(trailers)).unwrap();
    drop(frames);
    let frame = in_time(response.body_mut().frame()).await.unwrap().unwrap();
    assert_eq!(frame.into_trailers().unwrap()["checksum"], "abc");
    assert!(in_time(response.body_mut().frame()).await.is_none());
}

#[tokio::test]
async fn bodies_stream_both_ways_with_trailers_over_http1_and_bare_hyper() {
    bodies_stream_both_ways_with_trailers(false).await;
}

#[tokio::test]
async fn bodies_stream_both_ways_with_trailers_over_http2_and_bare_hyper() {
    bodies_stream_both_ways_with_trailers(true).await;
}

#[tokio::test]
async fn many_streams_of_one_http2_connection_are_offloaded() {
    let pools = Pools::default();
    let app = Router::new().route("/", on_get(async || place())).layer(PoolLayer::<Cpu>::new(&pools));
    let address = serve(app).await;
    let client = http2_client();
    let ask = || tokio::spawn(client.request(crate::fixtures::get(&format!("http://{address}/"))));
    let asked: Vec<_> = (0..100).map(|_| ask()).collect();
    for response in asked {
        assert_eq!(whole(in_time(response).await.unwrap().unwrap()).await.body(), "cpu");
    }
    assert_eq!(crate::fixtures::stats_of(&pools, "cpu").counts.ok, 100);
}

/// An app with many kinds of answers.
fn zoo() -> Router {
    Router::new()
        .route("/text", on_get(async || "hello"))
        .route("/empty", on_get(async || ()))
        .route("/no-content", on_get(async || StatusCode::NO_CONTENT))
        .route("/not-modified", on_get(async || (StatusCode::NOT_MODIFIED, [("etag", "\"a\"")])))
        .route(
            "/stream",
            on_get(async || Body::from_stream(tokio_stream::iter(["a", "bc", "d"].map(Ok::<_, Infallible>)))),
        )
        .route("/echo", post(async |body: Bytes| body))
        .route("/ignore", post(async |_: AxumRequest| "unread"))
        .route(
            "/headers",
            any(async |headers: HeaderMap| -> AxumResponse {
                let mut response = format!("{}", headers.len()).into_response();
                response.headers_mut().append("set-cookie", HeaderValue::from_static("a=1"));
                response.headers_mut().append("set-cookie", HeaderValue::from_static("b=2"));
                response
            }),
        )
        .route("/large", on_get(async || "x".repeat(1 << 20)))
        .route("/error", on_get(async || (StatusCode::INTERNAL_SERVER_ERROR, "own error")))
}

/// Sends `bytes` as they are; everything that comes back, but for the date.
async fn raw(address: SocketAddr, bytes: &str) -> String {
    let mut stream = TcpStream::connect(address).await.expect("it listens");
    stream.write_all(bytes.as_bytes()).await.expect("it is open");
    let mut answered = Vec::new();
    in_time(stream.read_to_end(&mut answered)).await.expect("it is closed in order");
    let answered = String::from_utf8_lossy(&answered).into_owned();
    answered.lines().filter(|line| !line.starts_with("date:")).collect::<Vec<_>>().join("\n")
}

#[tokio::test]
async fn answers_are_the_same_byte_for_byte_with_and_without_the_layer() {
    let bare = serve(zoo()).await;
    let offloaded = serve(zoo().layer(PoolLayer::<Cpu>::new(&Pools::default()))).await;
    let end = "host: x\r\nconnection: close\r\n";
    let mut requests = Vec::new();
    let paths = [
        "/text",
        "/empty",
        "/no-content",
        "/not-modified",
        "/stream",
        "/headers",
        "/large",
        "/error",
        "/none",
        "/echo",
    ];
    for path in paths {
        for method in ["GET", "HEAD", "OPTIONS", "DELETE"] {
            requests.push(format!("{method} {path} HTTP/1.1\r\n{end}\r\n"));
        }
        requests.push(format!("GET {path} HTTP/1.0\r\n\r\n"));
    }
    for path in ["/echo", "/ignore", "/none", "/text"] {
        requests.push(format!("POST {path} HTTP/1.1\r\n{end}content-length: 5\r\n\r\nhello"));
        requests.push(format!("POST {path} HTTP/1.1\r\n{end}content-length: 0\r\n\r\n"));
        requests.push(format!(
            "POST {path} HTTP/1.1\r\n{end}transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n1\r\n!\r\n0\r\n\r\n"
        ));
        requests.push(format!("POST {path} HTTP/1.1\r\n{end}transfer-encoding: chunked\r\n\r\nnot a chunk\r\n"));
    }
    requests.push(format!(
        "GET /text HTTP/1.1\r\nhost: x\r\n\r\nPOST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\nabcGET /stream HTTP/1.1\r\n{end}\r\n"
    ));
    requests.push("nonsense\r\n\r\n".to_owned());
    for request in requests {
        let expected = raw(bare, &request).await;
        assert!(expected.starts_with("HTTP/1."), "{request}\n{expected}");
        assert_eq!(raw(offloaded, &request).await, expected, "{request}");
    }
}

#[tokio::test]
async fn head_of_a_rejection_has_its_length_and_no_body() {
    let pools = Pools::default();
    let app = zoo().layer(PoolLayer::by(&pools, |_: &AxumRequest| Some("none")));
    let address = serve(app).await;
    let get = raw(address, "GET /text HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    let (head, problem) = get.split_once("\n\n").unwrap();
    assert!(head.contains(&format!("content-length: {}", problem.len())), "{get}");
    let answered = raw(address, "HEAD /text HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    assert_eq!(answered.trim_end(), head);
}

/// Reads until what was read ends with `end`.
async fn read_until(stream: &mut TcpStream, end: &[u8]) -> Vec<u8> {
    let mut read = Vec::new();
    in_time(async {
        while !read.ends_with(end) {
            read.push(stream.read_u8().await.expect("it is open"));
        }
    })
    .await;
    read
}

#[tokio::test]
async fn a_client_that_expects_100_continue_gets_it_when_the_handler_reads_the_body() {
    let address = serve(zoo().layer(PoolLayer::<Cpu>::new(&Pools::default()))).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = "HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\nexpect: 100-continue\r\nconnection: close\r\n\r\n";
    stream.write_all(format!("POST /echo {head}").as_bytes()).await.unwrap();
    assert_eq!(read_until(&mut stream, b"\r\n\r\n").await, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"hello").await.unwrap();
    let answered = read_until(&mut stream, b"hello").await;
    assert!(answered.starts_with(b"HTTP/1.1 200 OK\r\n"));

    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(format!("POST /ignore {head}").as_bytes()).await.unwrap();
    let answered = read_until(&mut stream, b"unread").await;
    assert!(answered.starts_with(b"HTTP/1.1 200 OK\r\n"), "a body that nobody reads is not asked for");
}

/// A server whose pool is full, and the gate that keeps it full.
async fn full() -> (SocketAddr, Gate) {
    let pools = crate::fixtures::pools_of(1, 0);
    let gate = Gate::new();
    let held = gate.clone();
    let _held = pools.submit_to_pool(Cpu, async move { held.pass().await }).expect("the pool is empty");
    gate.arrived(1).await;
    let app = Router::new()
        .route("/", post(|body: Bytes| async move { body.len().to_string() }).get(|| async { "got" }))
        .layer(PoolLayer::<Cpu>::new(&pools));
    (serve(app).await, gate)
}

#[tokio::test]
async fn a_rejection_closes_the_connection_only_if_the_body_is_unread_and_only_over_http_1() {
    let (address, gate) = full().await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    // Without a body the connection carries the next request.
    for _ in 0..2 {
        stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        let answered = String::from_utf8(read_until(&mut stream, b"}").await).unwrap().to_lowercase();
        assert!(answered.starts_with("http/1.1 503") && !answered.contains("connection:"), "{answered}");
    }
    stream.write_all(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 8000000\r\n\r\nxxxx").await.unwrap();
    let answered = String::from_utf8(read_until(&mut stream, b"}").await).unwrap().to_lowercase();
    assert!(answered.starts_with("http/1.1 503") && answered.contains("connection: close\r\n"), "{answered}");

    // HTTP/2 has no such header, and refuses responses that have it.
    let (sender, body) = tokio::sync::mpsc::channel::<Result<Bytes, Infallible>>(1);
    let request = Request::post(format!("http://{address}/")).body(Body::from_stream(ReceiverStream::new(body)));
    let response = in_time(http2_client().request(request.unwrap())).await.unwrap();
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(!response.headers().contains_key("connection"));
    drop(sender);
    gate.open(1);
}

#[tokio::test]
async fn callers_that_are_rejected_together_are_told_different_seconds() {
    let (address, gate) = full().await;
    let client = client();
    let mut told = std::collections::BTreeSet::new();
    for _ in 0..67 {
        let response = in_time(client.get(format!("http://{address}/").parse().unwrap())).await.unwrap();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        told.insert(response.headers()["retry-after"].to_str().unwrap().to_owned());
    }
    assert!(told.len() >= 2, "{told:?}");
    gate.open(1);
}

#[tokio::test]
async fn websockets_upgrade_through_the_layer() {
    let handler = async |upgrade: WebSocketUpgrade| {
        let upgraded_in = place();
        upgrade.on_upgrade(async move |mut socket| {
            while let Some(Ok(message)) = socket.recv().await {
                if let Message::Text(text) = message {
                    let reply = format!("{text} {upgraded_in} {}", place());
                    socket.send(reply.into()).await.expect("the client reads");
                }
            }
        })
    };
    let pools = Pools::default();
    let address = serve(Router::new().route("/", any(handler)).layer(PoolLayer::<Cpu>::new(&pools))).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    let upgrade = "GET / HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
        sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    stream.write_all(upgrade.as_bytes()).await.unwrap();
    let head = String::from_utf8(read_until(&mut stream, b"\r\n\r\n").await).unwrap();
    assert!(head.starts_with("HTTP/1.1 101 Switching Protocols\r\n"), "{head}");
    // The key and its answer are the example of RFC 6455.
    assert!(head.contains("sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{head}");
    // A text frame of five bytes, with a mask of zeros; the socket's own task is not a task of the pool.
    stream.write_all(b"\x81\x85\0\0\0\0hello").await.unwrap();
    assert_eq!(read_until(&mut stream, b"inline").await, b"\x81\x10hello cpu inline");
    let stats = crate::fixtures::stats_of(&pools, "cpu");
    assert_eq!((stats.counts.ok, stats.in_flight), (1, 0), "the socket holds no place in the pool");
    stream.write_all(b"\x88\x80\0\0\0\0").await.unwrap();
    assert_eq!(read_until(&mut stream, b"\x88\x00").await, b"\x88\x00");
}

#[tokio::test]
async fn the_clients_address_reaches_the_handler() {
    let handler = async |ConnectInfo(client): ConnectInfo<SocketAddr>| format!("{} {}", client.ip(), place());
    let app = Router::new().route("/", on_get(handler)).layer(PoolLayer::<Cpu>::new(&Pools::default()));
    let (listener, address) = listen().await;
    let app = app.into_make_service_with_connect_info::<SocketAddr>();
    tokio::spawn(async move { axum::serve(listener, app).await });
    let response = in_time(client().get(format!("http://{address}/").parse().unwrap())).await.unwrap();
    assert_eq!(whole(response).await.body(), "127.0.0.1 cpu");
}

#[tokio::test]
async fn a_client_that_leaves_in_the_middle_of_a_response_drops_its_body() {
    struct Bell(mpsc::UnboundedSender<()>);

    impl Drop for Bell {
        fn drop(&mut self) {
            let _ = self.0.send(());
        }
    }

    let (sender, mut rung) = mpsc::unbounded_channel();
    let handler = async move || {
        let bell = Bell(sender.clone());
        let (parts, received) = mpsc::channel(1);
        tokio::spawn(async move {
            // An endless response.
            while parts.send("part ".repeat(100)).await.is_ok() {}
        });
        Body::from_stream(ReceiverStream::new(received).map(move |part| {
            let _ = &bell;
            Ok::<_, Infallible>(part)
        }))
    };
    let address =
        serve(Router::new().route("/", on_get(handler)).layer(PoolLayer::<Cpu>::new(&Pools::default()))).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    read_until(&mut stream, b"part ").await;
    assert!(rung.try_recv().is_err());
    drop(stream);
    in_time(rung.recv()).await.unwrap();
}
