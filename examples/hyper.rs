//! A bare hyper server, HTTP/1.1 and HTTP/2, whose service runs in the pool `cpu`.
//!
//! ```sh
//! cargo run --release --example hyper -- 127.0.0.1:3000
//! curl http://127.0.0.1:3000/primes/10000000
//! ```

use std::convert::Infallible;
use std::error::Error;

use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tower::{ServiceBuilder, service_fn};
use tower_offload::body::{Buffered, ReadBody};
use tower_offload::{Cpu, PoolLayer, Pools};

/// Counts the primes up to a limit. This computes for up to a second, and delays no other connection.
async fn primes(request: Request<Buffered<Incoming>>) -> Result<Response<String>, Infallible> {
    let limit = request.uri().path().strip_prefix("/primes/").and_then(|limit| limit.parse().ok());
    let Some(limit @ 0..=100_000_000) = limit else {
        let mut response = Response::new("ask for /primes/LIMIT, with a limit of at most 100000000\n".to_owned());
        *response.status_mut() = StatusCode::BAD_REQUEST;
        return Ok(response);
    };
    let thread = std::thread::current();
    let thread = thread.name().unwrap_or("a thread without a name");
    Ok(Response::new(format!("{} primes up to {limit}, counted on {thread}\n", count_primes(limit))))
}

/// The sieve of Eratosthenes.
fn count_primes(limit: usize) -> usize {
    let mut composite = vec![false; limit + 1];
    let mut count = 0;
    for number in 2..=limit {
        if !composite[number] {
            count += 1;
            composite.iter_mut().skip(number * number).step_by(number).for_each(|multiple| *multiple = true);
        }
    }
    count
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let pools = Pools::default();
    // Bodies are read before the pool. Nobody has one here, but a client may send one all the same.
    let layer = PoolLayer::<Cpu>::new(&pools).read_body(ReadBody::new(1024).whole());
    let service = ServiceBuilder::new().layer(layer).service(service_fn(primes));
    let service = TowerToHyperService::new(service);

    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:3000".to_owned());
    let listener = TcpListener::bind(&address).await.map_err(|error| format!("cannot listen on {address}: {error}"))?;
    println!("listening on http://{}", listener.local_addr()?);
    loop {
        let (stream, client) = listener.accept().await?;
        let service = service.clone();
        tokio::spawn(async move {
            let connection = auto::Builder::new(TokioExecutor::new());
            if let Err(error) = connection.serve_connection(TokioIo::new(stream), service).await {
                eprintln!("the connection of {client} ended: {error}");
            }
        });
    }
}
