//! A tonic server with one service in the pool `cpu` and a health service outside of it, and its client.
//!
//! ```sh
//! cargo run --release --example tonic -- serve 127.0.0.1:3000
//! cargo run --release --example tonic -- ask 127.0.0.1:3000 9999999900000001
//! ```

// Generated from `primes.proto` by `tonic-prost-build` and `protox`, so this example needs no `protoc`.
#[rustfmt::skip]
#[allow(unreachable_pub, missing_docs, clippy::all, reason = "the code is generated")]
mod primes;

use std::error::Error;

use tokio::net::TcpListener;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::service::LayerExt;
use tonic::transport::Server;
use tonic::{Request, Response, Status};
use tower_offload::body::ReadBody;
use tower_offload::{Cpu, PoolLayer, Pools};

use self::primes::primes_client::PrimesClient;
use self::primes::primes_server::{Primes, PrimesServer};
use self::primes::{FactorReply, FactorRequest, Prime, UpToRequest};

/// Its methods compute on the thread that polls them, which is a worker of the pool.
struct Computing;

#[tonic::async_trait]
impl Primes for Computing {
    async fn factor(&self, request: Request<FactorRequest>) -> Result<Response<FactorReply>, Status> {
        let mut rest = request.into_inner().number;
        if rest == 0 {
            return Err(Status::invalid_argument("zero has no prime factors"));
        }
        let (mut factors, mut factor) = (Vec::new(), 2);
        while factor <= rest / factor {
            if rest.is_multiple_of(factor) {
                factors.push(factor);
                rest /= factor;
            } else {
                factor += 1;
            }
        }
        factors.extend((rest > 1).then_some(rest));
        Ok(Response::new(FactorReply { factors }))
    }

    type UpToStream = tokio_stream::Iter<std::vec::IntoIter<Result<Prime, Status>>>;

    /// The pool computes the primes; the connection polls their stream.
    async fn up_to(&self, request: Request<UpToRequest>) -> Result<Response<Self::UpToStream>, Status> {
        let limit @ 0..=1_000_000 = request.into_inner().limit else {
            return Err(Status::invalid_argument("the limit is at most 1000000"));
        };
        let is_prime = |&number: &u64| (2..).take_while(|d| d * d <= number).all(|d| !number.is_multiple_of(d));
        let primes: Vec<_> = (2..=limit).filter(is_prime).map(|value| Ok(Prime { value })).collect();
        Ok(Response::new(tokio_stream::iter(primes)))
    }
}

async fn serve(address: &str) -> Result<(), Box<dyn Error>> {
    let pools = Pools::default();
    let listener = TcpListener::bind(address).await.map_err(|error| format!("cannot listen on {address}: {error}"))?;
    println!("listening on http://{}", listener.local_addr()?);
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter.set_serving::<PrimesServer<Computing>>().await;
    // Only this service runs in the pool. A call takes a place there when all of it, up to 4 MiB, has arrived: no method
    // has a client that streams. A full pool answers RESOURCE_EXHAUSTED, and a panic INTERNAL.
    let layer = PoolLayer::<Cpu>::new(&pools).read_body(ReadBody::new(4 << 20).whole());
    let primes = layer.named_layer(PrimesServer::new(Computing));
    Server::builder()
        // Room for the messages of all queued calls of a connection: with tonic's own windows they hold each other up.
        .max_concurrent_streams(200)
        .initial_stream_window_size(256 << 10)
        .initial_connection_window_size(200 * (256 << 10))
        .add_service(primes)
        // Outside the pool: the health service answers while the pool is full.
        .add_service(health)
        .serve_with_incoming(TcpListenerStream::new(listener))
        .await?;
    Ok(())
}

async fn ask(address: &str, number: u64) -> Result<(), Box<dyn Error>> {
    let mut client = PrimesClient::connect(format!("http://{address}"))
        .await
        .map_err(|_| format!("no server answers at {address}"))?;
    let reply = client.factor(FactorRequest { number }).await?.into_inner();
    println!("prime factors of {number}: {:?}", reply.factors);
    let mut primes = client.up_to(UpToRequest { limit: 30 }).await?.into_inner();
    while let Some(prime) = primes.try_next().await? {
        print!("{} ", prime.value);
    }
    println!();
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => serve("127.0.0.1:3000").await,
        ["serve", address] => serve(address).await,
        ["ask", address, number] => {
            ask(address, number.parse().map_err(|error| format!("NUMBER: `{number}`: {error}"))?).await
        }
        _ => Err("give `serve ADDRESS` or `ask ADDRESS NUMBER`".into()),
    }
}
