//! TLS: slow handshakes delay no other connection, and ALPN selects HTTP/2.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tower_offload::server::{Handshake, Server, ShutdownReport};
use tower_offload::{Config, Pools};

use crate::hang_up::waiting;
use crate::harness::{FOR_EVER, SHORT, closed, exchange, hello, read_to, request, send, soon};

struct Tls {
    address: SocketAddr,
    connector: TlsConnector,
    stop: oneshot::Sender<()>,
    served: JoinHandle<ShutdownReport>,
}

async fn start(configure: impl FnOnce(&mut Config)) -> Tls {
    start_with(hello(), configure).await
}

async fn start_with(app: Router, configure: impl FnOnce(&mut Config)) -> Tls {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let certificate = made.cert.der().clone();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let mut server =
        ServerConfig::builder().with_no_client_auth().with_single_cert(vec![certificate.clone()], key).unwrap();
    server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let mut roots = RootCertStore::empty();
    roots.add(certificate).unwrap();
    let client = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(server));
    let mut config = Config::default();
    config.server.header_read_timeout = FOR_EVER;
    configure(&mut config);
    let (stop, stopped) = oneshot::channel::<()>();
    let listener = Handshake::new(listener, move |tcp| acceptor.accept(tcp))
        .socket(|tls: &tokio_rustls::server::TlsStream<TcpStream>| tls.get_ref().0);
    let server = Server::new(&config, &Pools::default()).listener(listener).shutdown_on(async { drop(stopped.await) });
    let served = tokio::spawn(async move { server.serve(app).await.unwrap() });
    Tls { address, connector: TlsConnector::from(Arc::new(client)), stop, served }
}

impl Tls {
    async fn handshake(&self, tcp: TcpStream) -> TlsStream<TcpStream> {
        let name = ServerName::try_from("localhost").unwrap();
        soon(self.connector.connect(name, tcp)).await.unwrap()
    }

    async fn connect(&self) -> TlsStream<TcpStream> {
        self.handshake(TcpStream::connect(self.address).await.unwrap()).await
    }
}

#[tokio::test]
async fn a_client_that_does_not_begin_its_handshake_delays_nobody() {
    let tls = start(|_| {}).await;
    let slow: Vec<_> =
        [TcpStream::connect(tls.address).await.unwrap(), TcpStream::connect(tls.address).await.unwrap()].into();
    let mut quick = tls.connect().await;
    exchange(&mut quick).await;
    // The slow clients may still begin their handshakes.
    for slow in slow {
        exchange(&mut tls.handshake(slow).await).await;
    }
}

#[tokio::test]
async fn a_handshake_is_subject_to_the_timeout_of_headers() {
    let tls = start(|config| config.server.header_read_timeout = SHORT).await;
    closed(&mut TcpStream::connect(tls.address).await.unwrap()).await;
}

#[tokio::test]
async fn a_client_that_does_not_speak_tls_is_closed() {
    let tls = start(|_| {}).await;
    let mut stream = TcpStream::connect(tls.address).await.unwrap();
    send(&mut stream, "/").await;
    let mut answer = Vec::new();
    soon(tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut answer)).await.ok();
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
}

#[tokio::test]
async fn http2_is_served_over_tls() {
    let mut tls = start(|_| {}).await;
    let mut client = ClientConfig::clone(tls.connector.config());
    client.alpn_protocols = vec![b"h2".to_vec()];
    tls.connector = TlsConnector::from(Arc::new(client));
    let stream = tls.connect().await;
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (mut client, connection) =
        soon(http2::handshake::<_, _, Empty<Bytes>>(TokioExecutor::new(), TokioIo::new(stream))).await.unwrap();
    tokio::spawn(connection);
    let response = soon(client.send_request(request(tls.address, "/"))).await.unwrap();
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "hello");
}

#[tokio::test]
async fn a_shutdown_finishes_what_came_over_tls() {
    let tls = start(|_| {}).await;
    let (mut idle, mut active) = (tls.connect().await, tls.connect().await);
    exchange(&mut idle).await;
    send(&mut active, "/").await;
    read_to(&mut active, "hello").await;
    tls.stop.send(()).unwrap();
    closed(&mut idle).await;
    closed(&mut active).await;
    let report = soon(tls.served).await.unwrap();
    assert_eq!((report.connections_finished, report.connections_cut_off), (2, 0));
}

/// The connection is young, so it has a second for its first request. The timeout of headers would be far longer.
#[tokio::test]
async fn a_handshake_that_stalls_does_not_hold_the_shutdown() {
    let tls = start(|_| {}).await;
    let mut stalled = TcpStream::connect(tls.address).await.unwrap();
    // The beginning of a ClientHello.
    stalled.write_all(b"\x16\x03\x01\x02\x00\x01").await.unwrap();
    exchange(&mut tls.connect().await).await;
    tls.stop.send(()).unwrap();
    closed(&mut stalled).await;
    let report = soon(tls.served).await.unwrap();
    assert_eq!(report.connections_cut_off, 0);
}

/// The end of the connection is behind bytes that the server does not read.
#[tokio::test]
async fn a_client_that_hangs_up_is_noticed_although_its_body_is_unread() {
    let (app, mut begins, mut cancels) = waiting();
    let tls = start_with(app, |_| {}).await;
    let mut client = tls.connect().await;
    client.write_all(b"POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9\r\n\r\nbody").await.unwrap();
    client.flush().await.unwrap();
    soon(begins.recv()).await.unwrap();
    drop(client);
    soon(cancels.recv()).await.unwrap();
}
