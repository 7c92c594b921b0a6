//! A server of a model: a unary call is an item of a batch, and a stream gives a result for each of its items.

use std::convert::Infallible;
use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::net::TcpListener;
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_stream::{Stream, StreamExt};
use tonic::body::Body;
use tonic::server::{NamedService, ServerStreamingService, UnaryService};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;
use tower::{BoxError, Layer, Service};
use tower_offload::batch::Batch;
use tower_offload::body::{BodyPolicy, ReadBody};
use tower_offload::config::{Route, Trust};
use tower_offload::server::Server;
use tower_offload::slots::Slots;
use tower_offload::{Config, Inference, Io, PoolConfig, PoolLayer, PoolStats, Pools};

use crate::session::{self, Failed, PIXELS, Session};

/// Calls that wait for their batch are in this pool, and streams in that of the model.
pub(crate) const CLASSIFY: &str = "/digits.Digits/Classify";
pub(crate) const CLASSIFY_EACH: &str = "/digits.Digits/ClassifyEach";

/// The most items of a batch.
pub(crate) const MAX_ITEMS: usize = 64;

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Image {
    #[prost(float, repeated, tag = "1")]
    pub(crate) pixels: Vec<f32>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Images {
    #[prost(message, repeated, tag = "1")]
    pub(crate) images: Vec<Image>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Digit {
    #[prost(uint32, tag = "1")]
    pub(crate) class: u32,
    #[prost(float, repeated, tag = "2")]
    pub(crate) probabilities: Vec<f32>,
    /// Why a stream has no digit for this item.
    #[prost(string, tag = "3")]
    pub(crate) problem: String,
    /// The thread that ran the model for an item of a stream.
    #[prost(string, tag = "4")]
    pub(crate) thread: String,
}

/// A running server, its pools and its gates.
pub(crate) struct Digits {
    pub(crate) pools: Pools,
    pub(crate) sessions: Slots<Session>,
    pub(crate) batches: Gate,
    /// Has a permit for each item of a stream that may be computed.
    pub(crate) items: Arc<Semaphore>,
    /// Has a permit for each call with `wait` in its metadata that may go on to its batch.
    pub(crate) calls: Arc<Semaphore>,
    pub(crate) address: SocketAddr,
    /// Ends the server, which answers what it has accepted.
    pub(crate) stop: Arc<Notify>,
    pub(crate) server: JoinHandle<()>,
}

/// Sees the batches, and holds them before they run while it is closed.
#[derive(Clone, Default)]
pub(crate) struct Gate(Arc<(Mutex<Held>, Condvar)>);

#[derive(Default)]
pub(crate) struct Held {
    is_closed: bool,
    /// How many batches may pass although it is closed.
    exceptions: usize,
    /// The items of each batch that has begun.
    sizes: Vec<usize>,
}

#[derive(Clone)]
struct Methods {
    batch: Batch<Vec<f32>, session::Prediction, Infallible>,
    sessions: Slots<Session>,
    items: Arc<Semaphore>,
    calls: Arc<Semaphore>,
}

type Answer<T> = Pin<Box<dyn Future<Output = Result<Response<T>, Status>> + Send>>;
type EachDigit = Pin<Box<dyn Stream<Item = Result<Digit, Status>> + Send>>;

/// What accepts connections and serves them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ServedBy {
    /// Its timer for `grpc-timeout` is around all layers. It answers `CANCELLED` if it is faster than the pool.
    Tonic,
    Offload,
}

impl Digits {
    /// Serves a model in a pool with this many permits, each of which runs a batch or a stream.
    pub(crate) async fn serve(by: ServedBy, model: Vec<u8>, permits: usize) -> Self {
        Self::serve_in(by, model, PoolConfig::new(permits).queue_capacity(1000), io()).await
    }

    pub(crate) async fn serve_in(by: ServedBy, model: Vec<u8>, inference: PoolConfig, io: PoolConfig) -> Self {
        let pools = Pools::builder()
            .pool(Io, io)
            .pool(Inference, inference.body(BodyPolicy::in_pool().hold()))
            .trust(Trust::default().grpc_timeout(true))
            .route(Route::new(&format!("POST {CLASSIFY}"), Io).unwrap())
            .route(Route::new(&format!("POST {CLASSIFY_EACH}"), Inference).unwrap())
            .build()
            .unwrap();
        let slots = Slots::builder(&pools, Inference).make(move || Session::load(model.clone()));
        let sessions = slots.warm_up(Session::warm_up).build().await.unwrap();
        let batches = Gate::default();
        let (items, calls) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
        let methods = Methods {
            batch: batch(&pools, &sessions, &batches),
            sessions: sessions.clone(),
            items: items.clone(),
            calls: calls.clone(),
        };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = Arc::new(Notify::new());
        let (stopped, layer) = (stop.clone().notified_owned(), PoolLayer::by_route(&pools));
        let layer = layer.read_body(ReadBody::new(1 << 20));
        let server = match by {
            ServedBy::Tonic => {
                let mut server = tonic::transport::Server::builder().max_concurrent_streams(1000).layer(layer);
                let server = server.add_service(methods);
                let serve = server.serve_with_incoming_shutdown(TcpListenerStream::new(listener), stopped);
                tokio::spawn(async { serve.await.unwrap() })
            }
            ServedBy::Offload => {
                let server = Server::new(&Config::default(), &pools).listener(listener).shutdown_on(stopped);
                let serve = server.serve(layer.layer(methods));
                tokio::spawn(async {
                    let report = serve.await.unwrap();
                    assert!(report.is_complete(), "{report}");
                })
            }
        };
        Self { sessions, batches, items, calls, address, stop, server, pools }
    }

    /// The numbers of the model's pool.
    pub(crate) fn inference(&self) -> PoolStats {
        self.pools.get(Inference).unwrap().stats()
    }

    /// The numbers of the pool of the calls that wait for their batch.
    pub(crate) fn io(&self) -> PoolStats {
        self.pools.get(Io).unwrap().stats()
    }
}

/// No worker waits at the gate of a test that has failed.
impl Drop for Digits {
    fn drop(&mut self) {
        self.batches.open();
    }
}

/// The calls in this pool wait, so it needs few workers and many permits.
pub(crate) fn io() -> PoolConfig {
    PoolConfig::new(2).concurrency(1000)
}

fn batch(pools: &Pools, sessions: &Slots<Session>, gate: &Gate) -> Batch<Vec<f32>, session::Prediction, Infallible> {
    let (sessions, gate) = (sessions.clone(), gate.clone());
    let run = move |images: Vec<Vec<f32>>| -> Result<Vec<session::Prediction>, Failed> {
        gate.pass(images.len());
        sessions.here(|session| session::classify(session, images))?
    };
    Batch::builder(pools, Inference).max_items(MAX_ITEMS).isolate().try_run(run).unwrap()
}

impl Gate {
    pub(crate) fn close(&self) {
        self.lock().is_closed = true;
    }

    pub(crate) fn open(&self) {
        self.lock().is_closed = false;
        self.0.1.notify_all();
    }

    /// Lets one batch pass, and stays closed to the next.
    pub(crate) fn let_one_pass(&self) {
        self.lock().exceptions += 1;
        self.0.1.notify_all();
    }

    /// The items of each batch that has begun.
    pub(crate) fn sizes(&self) -> Vec<usize> {
        self.lock().sizes.clone()
    }

    fn pass(&self, items: usize) {
        let mut held = self.lock();
        held.sizes.push(items);
        while held.is_closed {
            if let Some(others) = held.exceptions.checked_sub(1) {
                held.exceptions = others;
                return;
            }
            held = self.0.1.wait(held).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Methods ===

impl From<session::Prediction> for Digit {
    fn from(prediction: session::Prediction) -> Self {
        Self { class: prediction.class as u32, probabilities: prediction.probabilities, ..Self::default() }
    }
}

fn check(image: &Image) -> Result<(), Status> {
    if image.pixels.len() == PIXELS { Ok(()) } else { Err(Status::invalid_argument("an image has 64 pixels")) }
}

impl UnaryService<Image> for Methods {
    type Response = Digit;
    type Future = Answer<Digit>;

    fn call(&mut self, request: Request<Image>) -> Self::Future {
        let Self { mut batch, calls, .. } = self.clone();
        Box::pin(async move {
            if request.metadata().contains_key("wait") {
                calls.acquire().await.unwrap().forget();
            }
            let image = request.into_inner();
            check(&image)?;
            // The item inherits the deadline of the call.
            let digit = batch.call(image.pixels).await;
            Ok(Response::new(digit.map_err(|error| error.map_item(|never| -> Status { match never {} }))?.into()))
        })
    }
}

impl ServerStreamingService<Images> for Methods {
    type Response = Digit;
    type ResponseStream = EachDigit;
    type Future = Answer<EachDigit>;

    fn call(&mut self, request: Request<Images>) -> Self::Future {
        let Self { sessions, items, .. } = self.clone();
        Box::pin(async move {
            let Images { images } = request.into_inner();
            images.iter().try_for_each(check)?;
            let digits = tokio_stream::iter(images).then(move |image| {
                let (sessions, items) = (sessions.clone(), items.clone());
                async move {
                    items.acquire().await.unwrap().forget();
                    let ran = sessions.here(|session| session::classify(session, vec![image.pixels]))?;
                    let digit = ran.map(|mut digits| digits.remove(0).into());
                    let digit = digit.unwrap_or_else(|error| Digit { problem: error.to_string(), ..Digit::default() });
                    let thread = std::thread::current().name().unwrap_or_default().to_owned();
                    Ok(Digit { thread, ..digit })
                }
            });
            Ok(Response::new(Box::pin(digits) as EachDigit))
        })
    }
}

impl NamedService for Methods {
    const NAME: &'static str = "digits.Digits";
}

impl<B> Service<http::Request<B>> for Methods
where
    B: http_body::Body<Data = Bytes, Error: Into<BoxError> + Send> + Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let methods = self.clone();
        Box::pin(async move {
            Ok(match request.uri().path() {
                CLASSIFY => {
                    let codec = ProstCodec::<Digit, Image>::default();
                    tonic::server::Grpc::new(codec).unary(methods, request).await
                }
                CLASSIFY_EACH => {
                    let codec = ProstCodec::<Digit, Images>::default();
                    tonic::server::Grpc::new(codec).server_streaming(methods, request).await
                }
                path => Status::unimplemented(format!("there is no {path}")).into_http(),
            })
        })
    }
}
