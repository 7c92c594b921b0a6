//! gRPC calls through a tonic server and client: read up to their first message, and then handed on.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::uri::PathAndQuery;
use tokio::sync::mpsc;
use tokio_stream::wrappers::{TcpListenerStream, UnboundedReceiverStream};
use tokio_stream::{Stream, StreamExt};
use tonic::body::Body;
use tonic::client::Grpc;
use tonic::server::{NamedService, StreamingService, UnaryService};
use tonic::service::LayerExt;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;
use tower::Service;
use tower_offload::body::{BodyRead, ReadBody};
use tower_offload::{Cpu, PoolConfig, PoolLayer, Pools};

use crate::fixtures::{in_time, listen, place, stats_of};

#[derive(Clone, PartialEq, prost::Message)]
struct Blob {
    #[prost(bytes = "bytes", tag = "1")]
    data: Bytes,
}

type Answers<T> = Pin<Box<dyn Future<Output = Result<Response<T>, Status>> + Send>>;
type Blobs = Pin<Box<dyn Stream<Item = Result<Blob, Status>> + Send>>;

/// Answers each message with its length, its place, and whether the whole body was read before.
#[derive(Clone)]
struct Lengths;

impl NamedService for Lengths {
    const NAME: &'static str = "test.Lengths";
}

fn length(blob: &Blob, read: bool) -> Blob {
    Blob { data: format!("{} {} {read}", blob.data.len(), place()).into() }
}

impl UnaryService<Blob> for Lengths {
    type Response = Blob;
    type Future = Answers<Blob>;

    fn call(&mut self, request: Request<Blob>) -> Self::Future {
        let read = request.extensions().get::<BodyRead>().is_some();
        Box::pin(async move { Ok(Response::new(length(request.get_ref(), read))) })
    }
}

impl StreamingService<Blob> for Lengths {
    type Response = Blob;
    type ResponseStream = Blobs;
    type Future = Answers<Blobs>;

    fn call(&mut self, request: Request<Streaming<Blob>>) -> Self::Future {
        let read = request.extensions().get::<BodyRead>().is_some();
        let answers = request.into_inner().map(move |blob| blob.map(|blob| length(&blob, read)));
        Box::pin(async move { Ok(Response::new(Box::pin(answers) as Blobs)) })
    }
}

impl<B> Service<http::Request<B>> for Lengths
where
    B: http_body::Body<Data = Bytes, Error: Into<tower::BoxError> + Send> + Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        Box::pin(async move {
            let mut grpc = tonic::server::Grpc::new(ProstCodec::<Blob, Blob>::default());
            Ok(match request.uri().path() {
                "/test.Lengths/One" => grpc.unary(Self, request).await,
                _ => grpc.streaming(Self, request).await,
            })
        })
    }
}

fn pools(workers: usize) -> Pools {
    Pools::builder().pool("cpu", PoolConfig::new(workers)).build().unwrap()
}

async fn serve(pools: &Pools, read_body: ReadBody) -> Channel {
    let (listener, address) = listen().await;
    let server = Server::builder()
        .layer(PoolLayer::<Cpu>::new(pools).read_body(read_body))
        .add_service(Lengths)
        .serve_with_incoming(TcpListenerStream::new(listener));
    tokio::spawn(server);
    in_time(Endpoint::new(format!("http://{address}")).unwrap().connect()).await.unwrap()
}

async fn one(channel: Channel, length: usize) -> Result<String, Status> {
    let mut grpc = Grpc::new(channel);
    in_time(grpc.ready()).await.unwrap();
    let (path, codec) = (PathAndQuery::from_static("/test.Lengths/One"), ProstCodec::<Blob, Blob>::default());
    let blob = Blob { data: vec![7; length].into() };
    let answer = in_time(grpc.unary(Request::new(blob), path, codec)).await?;
    Ok(String::from_utf8(answer.into_inner().data.into()).unwrap())
}

#[tokio::test]
async fn a_unary_call_is_read_before_it_comes_to_the_pool() {
    let channel = serve(&pools(1), ReadBody::new(1 << 20)).await;
    for length in [0, 1, 20_000, 500_000] {
        let answer = one(channel.clone(), length).await.unwrap();
        let (whole, _) = answer.rsplit_once(' ').unwrap();
        assert_eq!(whole, format!("{length} cpu"));
    }
}

#[tokio::test]
async fn a_stream_in_both_directions_cannot_deadlock() {
    let channel = serve(&pools(1), ReadBody::new(1 << 20)).await;
    let mut grpc = Grpc::new(channel);
    in_time(grpc.ready()).await.unwrap();
    let (pings, stream) = mpsc::unbounded_channel();
    let path = PathAndQuery::from_static("/test.Lengths/Each");
    // The client sends a message only when it has the answer to the last one.
    pings.send(Blob { data: vec![0; 1].into() }).unwrap();
    let codec = ProstCodec::<Blob, Blob>::default();
    let answer = in_time(grpc.streaming(Request::new(UnboundedReceiverStream::new(stream)), path, codec)).await;
    let mut pongs = answer.unwrap().into_inner();
    for length in 1..10 {
        let pong: Blob = in_time(pongs.message()).await.unwrap().unwrap();
        let pong = String::from_utf8(pong.data.into()).unwrap();
        assert!(pong.starts_with(&format!("{length} ")) && pong.ends_with("false"), "{pong}");
        pings.send(Blob { data: vec![0; length + 1].into() }).unwrap();
    }
    drop(pings);
    assert!(in_time(pongs.message()).await.unwrap().is_some());
    assert!(in_time(pongs.message()).await.unwrap().is_none());
}

/// A unary call waits for the end of its body, and would hold its permit meanwhile.
#[tokio::test]
async fn a_call_that_its_client_does_not_end_holds_no_permit_if_it_is_read_whole() {
    let channel = serve(&pools(1), ReadBody::new(1 << 20).whole().within(Duration::from_millis(50))).await;
    let mut grpc = Grpc::new(channel.clone());
    in_time(grpc.ready()).await.unwrap();
    let (messages, stream) = mpsc::unbounded_channel();
    messages.send(Blob { data: vec![7; 5].into() }).unwrap();
    let (path, codec) = (PathAndQuery::from_static("/test.Lengths/One"), ProstCodec::<Blob, Blob>::default());
    let call = grpc.client_streaming(Request::new(UnboundedReceiverStream::new(stream)), path, codec);
    assert_eq!(in_time(call).await.unwrap_err().code(), Code::DeadlineExceeded);
    let whole = loop {
        match one(channel.clone(), 5).await {
            // On a slow machine, even a call that is whole may come too late.
            Err(status) => assert_eq!(status.code(), Code::DeadlineExceeded),
            Ok(whole) => break whole,
        }
    };
    assert!(whole.starts_with("5 cpu"), "{whole}");
}

#[tokio::test]
async fn a_message_above_the_limit_is_resource_exhausted() {
    let pools = pools(1);
    let channel = serve(&pools, ReadBody::new(1000)).await;
    assert!(one(channel.clone(), 900).await.unwrap().starts_with("900 cpu"));
    let refused = one(channel, 1001).await.unwrap_err();
    let message = "pool `cpu` gave no answer: the request's body is larger than 1000 bytes";
    assert_eq!((refused.code(), refused.message()), (Code::ResourceExhausted, message));
    assert_eq!(stats_of(&pools, "cpu").counts.rejected, 1);
}

/// tonic gives a connection a window of 1 MiB. Unread bodies of queued calls would take all of it, and the calls in
/// flight would wait for the rest of their bodies until the queue timeout.
#[tokio::test]
async fn twenty_large_calls_on_one_channel_are_all_answered_by_two_workers() {
    let channel = serve(&pools(2), ReadBody::new(1 << 20)).await;
    let calls: Vec<_> = (0..20).map(|_| tokio::spawn(one(channel.clone(), 200_000))).collect();
    for call in calls {
        assert!(in_time(call).await.unwrap().unwrap().starts_with("200000 cpu"));
    }
}

#[tokio::test]
async fn a_single_service_of_a_server_may_be_wrapped() {
    let pools = pools(1);
    let (listener, address) = listen().await;
    let layer = PoolLayer::<Cpu>::new(&pools).read_body(ReadBody::new(1 << 20));
    let server =
        Server::builder().add_service(layer.named_layer(Lengths)).serve_with_incoming(TcpListenerStream::new(listener));
    tokio::spawn(server);
    let channel = in_time(Endpoint::new(format!("http://{address}")).unwrap().connect()).await.unwrap();
    assert!(one(channel, 5).await.unwrap().starts_with("5 cpu"));
}

#[tokio::test]
async fn the_layer_that_stands_alone_stands_around_a_server_of_tonic() {
    let (listener, address) = listen().await;
    let server = Server::builder()
        .layer(ReadBody::new(1000))
        .add_service(Lengths)
        .serve_with_incoming(TcpListenerStream::new(listener));
    tokio::spawn(server);
    let channel = in_time(Endpoint::new(format!("http://{address}")).unwrap().connect()).await.unwrap();
    assert!(one(channel.clone(), 5).await.unwrap().starts_with("5 inline"));
    assert_eq!(one(channel, 1001).await.unwrap_err().message(), "the request's body is larger than 1000 bytes");
}
