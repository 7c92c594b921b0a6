//! A tonic server with the layer around it or around one service, asked by a real client.

use std::net::SocketAddr;
use std::pin::Pin;

use tokio_stream::wrappers::TcpListenerStream;
use tokio_stream::{Stream, StreamExt};
use tonic::service::LayerExt;
use tonic::transport::Server;
use tonic::{Code, Request, Response, Status};
use tower_offload::body::BodyPolicy;
use tower_offload::{Cpu, Io, PoolConfig, PoolLayer, Pools};

use self::primes::primes_client::PrimesClient;
use self::primes::primes_server::{Primes, PrimesServer};
use self::primes::{FactorReply, FactorRequest, Prime, UpToRequest};
use crate::fixtures::{Gate, in_time, listen, place, pools_of, stats_of, until};

#[rustfmt::skip]
#[allow(unreachable_pub, missing_docs, clippy::all, reason = "the code is generated")]
#[path = "../../examples/tonic/primes.rs"]
mod primes;

/// Does what the request asks for: returns where it runs, fails, panics, or waits at the gate.
#[derive(Clone)]
struct Asked(Gate);

#[tonic::async_trait]
impl Primes for Asked {
    async fn factor(&self, request: Request<FactorRequest>) -> Result<Response<FactorReply>, Status> {
        let sent = request.metadata().get("sent").cloned();
        match request.into_inner().number {
            0 => return Err(Status::invalid_argument("zero has no factors")),
            13 => panic!("thirteen"),
            17 => self.0.pass().await,
            _ => {}
        }
        let mut response = Response::new(FactorReply { factors: vec![2, 3] });
        response.metadata_mut().insert("place", place().parse().expect("a name"));
        if let Some(sent) = sent {
            response.metadata_mut().insert("returned", sent);
        }
        Ok(response)
    }

    type UpToStream = Pin<Box<dyn Stream<Item = Result<Prime, Status>> + Send>>;

    async fn up_to(&self, request: Request<UpToRequest>) -> Result<Response<Self::UpToStream>, Status> {
        let limit = request.into_inner().limit;
        let primes = [2, 3, 5, 7].map(move |value| match value <= limit {
            true => Ok(Prime { value }),
            false => Err(Status::out_of_range("that was all")),
        });
        Ok(Response::new(Box::pin(tokio_stream::iter(primes))))
    }
}

/// A server whose every service is offloaded, and its client.
async fn around_the_server(pools: &Pools, gate: &Gate) -> PrimesClient<tonic::transport::Channel> {
    let (listener, address) = listen().await;
    let server = Server::builder()
        .layer(PoolLayer::<Cpu>::new(pools))
        .add_service(PrimesServer::new(Asked(gate.clone())))
        .serve_with_incoming(TcpListenerStream::new(listener));
    tokio::spawn(server);
    client_of(address).await
}

async fn client_of(address: SocketAddr) -> PrimesClient<tonic::transport::Channel> {
    in_time(PrimesClient::connect(format!("http://{address}"))).await.expect("the server listens")
}

fn factor(number: u64) -> Request<FactorRequest> {
    let mut request = Request::new(FactorRequest { number });
    request.metadata_mut().insert("sent", "there and back".parse().expect("a value"));
    request
}

#[tokio::test]
async fn calls_run_in_the_pool_with_their_metadata_and_errors() {
    let mut client = around_the_server(&Pools::default(), &Gate::new()).await;
    let response = in_time(client.factor(factor(6))).await.unwrap();
    assert_eq!(response.metadata().get("place").unwrap(), "cpu");
    assert_eq!(response.metadata().get("returned").unwrap(), "there and back");
    assert_eq!(response.into_inner().factors, [2, 3]);
    let own = in_time(client.factor(factor(0))).await.unwrap_err();
    assert_eq!((own.code(), own.message()), (Code::InvalidArgument, "zero has no factors"));
}

#[tokio::test]
async fn streams_come_whole_with_the_status_at_their_end() {
    for policy in [BodyPolicy::on_connection(), BodyPolicy::in_pool(), BodyPolicy::in_pool().hold()] {
        let pools = Pools::builder().pool(Cpu, PoolConfig::new(2).body(policy)).build().unwrap();
        let mut client = around_the_server(&pools, &Gate::new()).await;
        let whole = in_time(client.up_to(UpToRequest { limit: 7 })).await.unwrap().into_inner();
        let whole: Vec<_> = in_time(whole.map(|prime| prime.unwrap().value).collect()).await;
        assert_eq!(whole, [2, 3, 5, 7]);
        let mut short = in_time(client.up_to(UpToRequest { limit: 3 })).await.unwrap().into_inner();
        assert_eq!(in_time(short.message()).await.unwrap().unwrap().value, 2);
        assert_eq!(in_time(short.message()).await.unwrap().unwrap().value, 3);
        assert_eq!(in_time(short.message()).await.unwrap_err().code(), Code::OutOfRange);
    }
}

#[tokio::test]
async fn one_service_of_a_server_is_offloaded_under_its_name() {
    let pools = Pools::default();
    let (listener, address) = listen().await;
    let server = Server::builder()
        .add_service(PoolLayer::<Io>::new(&pools).named_layer(PrimesServer::new(Asked(Gate::new()))))
        .serve_with_incoming(TcpListenerStream::new(listener));
    tokio::spawn(server);
    let response = in_time(client_of(address).await.factor(factor(6))).await.unwrap();
    assert_eq!(response.metadata().get("place").unwrap(), "io");
}

/// The layer is around the whole server, its health service included.
#[tokio::test]
async fn a_health_check_is_answered_while_the_pool_is_full() {
    use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};

    let pools = pools_of(1, 0);
    let gate = Gate::new();
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter.set_serving::<PrimesServer<Asked>>().await;
    let (listener, address) = listen().await;
    let server = Server::builder()
        .layer(PoolLayer::<Cpu>::new(&pools))
        .add_service(PrimesServer::new(Asked(gate.clone())))
        .add_service(health)
        .serve_with_incoming(TcpListenerStream::new(listener));
    tokio::spawn(server);
    let client = client_of(address).await;
    let mut holding = client.clone();
    let held = tokio::spawn(async move { holding.factor(factor(17)).await });
    gate.arrived(1).await;
    let full = in_time(client.clone().factor(factor(6))).await.unwrap_err();
    assert_eq!(full.code(), Code::ResourceExhausted);
    let channel = tonic::transport::Endpoint::new(format!("http://{address}")).unwrap();
    let mut health = HealthClient::new(in_time(channel.connect()).await.unwrap());
    let check = in_time(health.check(HealthCheckRequest { service: String::new() })).await.unwrap();
    assert_eq!(check.into_inner().status(), ServingStatus::Serving);
    gate.open(1);
    in_time(held).await.unwrap().unwrap();
    let counts = stats_of(&pools, "cpu").counts;
    assert_eq!((counts.submitted, counts.ok, counts.rejected), (2, 1, 1), "the check never came to the pool");
}

#[tokio::test]
async fn a_full_pool_is_resource_exhausted_and_a_panic_internal() {
    let pools = pools_of(1, 0);
    let gate = Gate::new();
    let client = around_the_server(&pools, &gate).await;
    let panicked = in_time(client.clone().factor(factor(13))).await.unwrap_err();
    assert_eq!((panicked.code(), panicked.message()), (Code::Internal, "pool `cpu` gave no answer: the task panicked"));

    let mut holding = client.clone();
    let held = tokio::spawn(async move { holding.factor(factor(17)).await });
    gate.arrived(1).await;
    let full = in_time(client.clone().factor(factor(6))).await.unwrap_err();
    assert_eq!(
        (full.code(), full.message()),
        (Code::ResourceExhausted, "pool `cpu` gave no answer: its queue is full")
    );
    assert!(full.metadata().get("grpc-retry-pushback-ms").is_some());
    gate.open(1);
    assert_eq!(in_time(held).await.unwrap().unwrap().into_inner().factors, [2, 3]);

    in_time(pools.shutdown(std::time::Duration::from_secs(60))).await;
    let draining = in_time(client.clone().factor(factor(6))).await.unwrap_err();
    assert_eq!(draining.code(), Code::Unavailable);
}

#[tokio::test]
async fn a_cancelled_call_leaves_the_pool() {
    let pools = pools_of(1, 1);
    let gate = Gate::new();
    let client = around_the_server(&pools, &gate).await;
    let call = || {
        let mut client = client.clone();
        tokio::spawn(async move { client.factor(factor(17)).await })
    };
    let in_flight = call();
    gate.arrived(1).await;
    let queued = call();
    until(|| stats_of(&pools, "cpu").queued_tasks == 1).await;
    queued.abort();
    until(|| stats_of(&pools, "cpu").queued_tasks == 0).await;
    in_flight.abort();
    until(|| stats_of(&pools, "cpu").in_flight == 0).await;
    assert_eq!(stats_of(&pools, "cpu").counts.cancelled, 2);
    assert_eq!(gate.waiting(), 0);
}
