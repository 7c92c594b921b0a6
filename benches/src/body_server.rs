//! The servers whose streaming responses are compared.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use flate2::Compression;
use flate2::write::GzEncoder;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::sync::mpsc;
use tower_http::compression::CompressionLayer;
use tower_offload::body::{BodyPolicy, OnDrain};
use tower_offload::{Cpu, PoolConfig, PoolLayer, Pools, stream};

use crate::body_source::{Channel, Source};
use crate::harness::OURS;
use crate::server::{self, BARE, OURS_NICE, OURS_SERVE};
use crate::ways::{self, Direct, Speed};

/// The name of the part.
pub const PART: &str = "bodies";

/// The kinds that only this part has.
pub const OURS_CONNECTION: &str = "ours, bodies on the connection";
pub const OURS_HELD: &str = "ours, on the connection, held";
pub const OURS_LARGE: &str = "ours, a buffer of 512 KiB";
pub const OURS_WRITER: &str = "ours, stream::writer";
pub const CHANNEL: &str = "spawn_blocking + channel";

/// How long a client of [`OURS_SERVE`] may take nothing.
pub const STALL: Duration = Duration::from_secs(2);
/// The last event of each stream of [`OURS_SERVE`] when it drains.
pub const FAREWELL: &str = "event: close\ndata:\n\n";

/// The frames that a channel holds: as many as a pool's buffer of 64 KiB if they are small.
const CHANNEL_FRAMES: usize = 16;
/// The bytes of a frame that blocking code compresses.
const COMPRESSED_FRAME: usize = 16 * 1024;

/// How the routes make their bodies.
#[derive(Clone)]
enum Way {
    /// A body that somebody polls.
    Polled,
    Writer,
    /// Counts the closures that have not ended.
    Channel(Arc<AtomicUsize>),
}

/// Serves until the process is ended.
pub fn play(kind: &str, speed: Speed) {
    raise_limit_of_files();
    let runtime = ways::runtime();
    let cpu = ways::patient(PoolConfig::new(ways::LIMIT)).concurrency(20_000);
    let pools = ways::pools(if kind == OURS_NICE { cpu.nice(5) } else { cpu });
    let closures = Arc::new(AtomicUsize::new(0));
    let way = match kind {
        CHANNEL => Way::Channel(closures.clone()),
        OURS_WRITER => Way::Writer,
        _ => Way::Polled,
    };
    let router = server::routes(speed, &Direct).merge(routes(&way, speed));
    let policy = match kind {
        BARE | CHANNEL => None,
        OURS_CONNECTION => Some(BodyPolicy::on_connection()),
        OURS_HELD => Some(BodyPolicy::on_connection().hold()),
        OURS_LARGE => Some(BodyPolicy::in_pool().buffer(512 * 1024)),
        OURS | OURS_NICE | OURS_WRITER => Some(BodyPolicy::in_pool()),
        OURS_SERVE => {
            let farewell = OnDrain::EndWith(Bytes::from_static(FAREWELL.as_bytes()));
            Some(BodyPolicy::in_pool().stall_timeout(STALL).on_drain(farewell))
        }
        other => panic!("there is no server `{other}`"),
    };
    let in_flight = {
        let pools = pools.clone();
        move || closures.load(Ordering::Relaxed) + tasks_in_flight(&pools)
    };
    let router = match policy {
        Some(policy) => router.layer(PoolLayer::<Cpu>::new(&pools).body(policy)),
        None => router,
    };
    let router = router.route("/in_flight", get(async move || in_flight().to_string()));
    server::serve(&runtime, router, (kind == OURS_SERVE).then_some(&pools));
}

fn tasks_in_flight(pools: &Pools) -> usize {
    pools.stats().iter().map(|pool| pool.in_flight).sum()
}

/// Lets the process have as many connections as the system allows.
pub fn raise_limit_of_files() {
    if let Ok((_, most)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, most, most);
    }
}

fn routes(way: &Way, speed: Speed) -> Router {
    let computed = Source::Computed(speed.task(Duration::from_micros(100)));
    let streams = [
        ("/large", Source::Large),
        ("/ticks", Source::Ticks),
        ("/idle", Source::Idle),
        ("/ready", Source::Ready),
        ("/computed", computed),
    ];
    let router = streams.into_iter().fold(Router::new(), |router, (path, source)| {
        let way = way.clone();
        router.route(path, get(async move || ([(CONTENT_TYPE, "text/event-stream")], way.body(source))))
    });
    let way = way.clone();
    let text = get(async move || way.text());
    router.route("/text", text.layer(CompressionLayer::new()))
}

impl Way {
    fn body(&self, source: Source) -> Body {
        match self {
            Self::Polled => Body::new(source.body()),
            Self::Writer => Body::new(stream::writer(move |out| {
                source.write(|frame| {
                    out.write_all(frame)?;
                    out.flush()
                })
            })),
            Self::Channel(open) => channel(open, move |send| source.write(|frame| send(frame.clone()))),
        }
    }

    /// A long text: compressed by the layer, or by blocking code.
    fn text(&self) -> axum::response::Response {
        let encoding = [(axum::http::header::CONTENT_ENCODING, "gzip")];
        match self {
            Self::Polled => Body::new(Source::Text.body()).into_response(),
            Self::Writer => (encoding, Body::new(stream::writer(compress))).into_response(),
            Self::Channel(open) => {
                let body =
                    channel(open, |send| compress(&mut io::BufWriter::with_capacity(COMPRESSED_FRAME, Sink(send))));
                (encoding, body).into_response()
            }
        }
    }
}

/// Writes the text as gzip.
fn compress(out: &mut impl Write) -> io::Result<()> {
    let mut encoder = GzEncoder::new(out, Compression::default());
    Source::Text.write(|frame| encoder.write_all(frame))?;
    encoder.finish()?.flush()
}

/// A body that a closure of `spawn_blocking` sends through a bounded channel.
fn channel(
    open: &Arc<AtomicUsize>,
    produce: impl FnOnce(&mut dyn FnMut(Bytes) -> io::Result<()>) -> io::Result<()> + Send + 'static,
) -> Body {
    let (sender, receiver) = mpsc::channel(CHANNEL_FRAMES);
    let open = open.clone();
    open.fetch_add(1, Ordering::Relaxed);
    tokio::task::spawn_blocking(move || {
        let mut send =
            |frame: Bytes| sender.blocking_send(frame).map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe));
        // The client has left.
        let _ = produce(&mut send);
        open.fetch_sub(1, Ordering::Relaxed);
    });
    Body::new(Channel(receiver))
}

/// Sends what is written.
struct Sink<'a>(&'a mut dyn FnMut(Bytes) -> io::Result<()>);

impl Write for Sink<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (self.0)(Bytes::copy_from_slice(bytes))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
