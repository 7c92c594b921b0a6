//! HTTP/1.1 and HTTP/2, any Tower service, and errors at the start.

use std::convert::Infallible;

use axum::routing::get;
use axum::{Extension, Router};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tower_offload::server::{PeerAddr, ServeError, Server};
use tower_offload::{Config, Pools};

use crate::harness::{TestServer, exchange, hello, read_to, request, send, soon};

#[tokio::test]
async fn http1_serves_several_requests_on_one_connection() {
    let server = TestServer::start(hello(), |_| {}).await;
    let mut stream = server.connect().await;
    for _ in 0..3 {
        assert!(exchange(&mut stream).await.starts_with("HTTP/1.1 200 OK\r\n"));
    }
}

#[tokio::test]
async fn http1_serves_pipelined_requests_in_order() {
    let server = TestServer::start(hello(), |_| {}).await;
    let mut stream = server.connect().await;
    send(&mut stream, "/").await;
    send(&mut stream, "/missing").await;
    send(&mut stream, "/").await;
    let answers = read_to(&mut stream, "hello").await + &read_to(&mut stream, "hello").await;
    let statuses: Vec<_> = answers.split("HTTP/1.1 ").skip(1).map(|answer| &answer[..3]).collect();
    assert_eq!(statuses, ["200", "404", "200"]);
}

#[tokio::test]
async fn http2_is_served_with_prior_knowledge() {
    let server = TestServer::start(hello(), |_| {}).await;
    let (mut client, _connection) = server.http2(|_| {}).await;
    let response = soon(client.send_request(request(server.address, "/"))).await.unwrap();
    assert_eq!(response.version(), http::Version::HTTP_2);
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "hello");
}

#[tokio::test]
async fn a_header_that_a_balancer_lets_pass_is_served_over_both_protocols() {
    let server = TestServer::start(hello(), |_| {}).await;
    let cookies = "c".repeat(60_000);
    let mut stream = server.connect().await;
    stream.write_all(format!("GET / HTTP/1.1\r\nhost: x\r\ncookie: {cookies}\r\n\r\n").as_bytes()).await.unwrap();
    assert!(read_to(&mut stream, "hello").await.starts_with("HTTP/1.1 200 OK\r\n"));
    let (mut client, _connection) = server.http2(|_| {}).await;
    let mut request = request(server.address, "/");
    request.headers_mut().insert("cookie", cookies.parse().unwrap());
    assert_eq!(soon(client.send_request(request.clone())).await.unwrap().status(), 200);
    // Its connection may be that of a proxy, which has requests of others there.
    for more in [10_000, 40_000, 180_000] {
        request.headers_mut().insert("x-more", "c".repeat(more).parse().unwrap());
        let refused = soon(client.send_request(request.clone())).await.unwrap();
        assert_eq!(refused.status(), 431, "{more}");
        assert_eq!(refused.into_body().collect().await.unwrap().to_bytes(), "");
    }
    request.headers_mut().remove("x-more");
    assert_eq!(soon(client.send_request(request)).await.unwrap().status(), 200);
}

#[tokio::test]
async fn any_tower_service_can_be_served() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let service = tower::service_fn(|request: http::Request<hyper::body::Incoming>| async move {
        let path = request.uri().path().to_owned();
        Ok::<_, Infallible>(http::Response::new(Full::new(Bytes::from(path))))
    });
    let pools = Pools::default();
    tokio::spawn(Server::new(&Config::default(), &pools).listener(listener).serve(service));
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    send(&mut stream, "/some/path").await;
    read_to(&mut stream, "\r\n\r\n/some/path").await;
}

#[tokio::test]
async fn a_malformed_request_gets_a_400() {
    let server = TestServer::start(hello(), |_| {}).await;
    let mut stream = server.connect().await;
    stream.write_all(b"GET / HTTP/1.1\r\nbad header\r\n\r\n").await.unwrap();
    assert!(read_to(&mut stream, "\r\n").await.starts_with("HTTP/1.1 400 Bad Request\r\n"));
}

#[tokio::test]
async fn an_address_in_use_is_an_error_that_names_it() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut config = Config::default();
    config.server.port = taken.local_addr().unwrap().port();
    let error = Server::new(&config, &Pools::default()).serve(hello()).await.unwrap_err();
    assert!(matches!(error, ServeError::Bind { address, .. } if address == taken.local_addr().unwrap()));
    assert!(error.to_string().contains("another process listens there"), "{error}");
}

#[tokio::test]
async fn a_request_carries_the_address_it_comes_from() {
    async fn whoami(Extension(PeerAddr(address)): Extension<PeerAddr>) -> String {
        format!("hello {address}!")
    }
    let server = TestServer::start(Router::new().route("/", get(whoami)), |_| {}).await;
    let mut stream = server.connect().await;
    send(&mut stream, "/").await;
    let expected = format!("hello {}!", stream.local_addr().unwrap());
    read_to(&mut stream, &expected).await;
}
