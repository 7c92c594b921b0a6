//! Handshakes, such as those of TLS, that delay no other connection.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::listener::Listener;

/// A listener whose connections begin with a handshake.
///
/// The handshake runs in its connection's own task, not in the accept loop, so a client that is slow with it delays
/// nobody else. `server.header_read_timeout` limits the handshake and the first request's header together.
///
/// With the crate `tokio-rustls`, this is TLS:
///
/// ```no_run
/// use std::sync::Arc;
/// use tokio::net::TcpListener;
/// use tokio_rustls::{TlsAcceptor, rustls::ServerConfig};
/// use tower_offload::server::{Handshake, Server};
/// # use tower_offload::{Config, Pools};
///
/// # async fn serve(config: Config, pools: Pools, mut tls: ServerConfig) -> Result<(), Box<dyn std::error::Error>> {
/// # let app = axum::Router::new();
/// // The server recognises HTTP/2 by its first bytes; clients ask for it by ALPN.
/// tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
/// let tls = TlsAcceptor::from(Arc::new(tls));
/// let listener = TcpListener::bind(config.server.address()).await?;
/// Server::new(&config, &pools)
///     .listener(Handshake::new(listener, move |tcp| tls.accept(tcp)))
///     .serve(app)
///     .await?;
/// # Ok(())
/// # }
/// ```
pub struct Handshake<L, F> {
    listener: L,
    handshake: F,
}

/// A connection of a [`Handshake`]. The first read or write performs the handshake.
pub struct HandshakeIo<Io> {
    /// Until it ends.
    handshake: Option<Pin<Box<dyn Future<Output = io::Result<Io>> + Send>>>,
    /// Since it succeeded.
    io: Option<Io>,
}

impl<L, F> Handshake<L, F> {
    /// Calls `handshake` with each connection of `listener`. An error of the future that it returns closes the
    /// connection.
    pub fn new(listener: L, handshake: F) -> Self {
        Self { listener, handshake }
    }
}

impl<L, F, Shaking, Io> Listener for Handshake<L, F>
where
    L: Listener,
    F: FnMut(L::Io) -> Shaking + Send + 'static,
    Shaking: Future<Output = io::Result<Io>> + Send + 'static,
    Io: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    type Io = HandshakeIo<Io>;
    type Addr = L::Addr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        let (io, peer) = self.listener.accept().await;
        (HandshakeIo { handshake: Some(Box::pin((self.handshake)(io))), io: None }, peer)
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

impl<L: fmt::Debug, F> fmt::Debug for Handshake<L, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handshake").field("listener", &self.listener).finish_non_exhaustive()
    }
}

// === impl HandshakeIo ===

impl<Io: Unpin> HandshakeIo<Io> {
    fn poll_io(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Pin<&mut Io>>> {
        if let Some(handshake) = &mut self.handshake {
            let io = ready!(handshake.as_mut().poll(cx));
            self.handshake = None;
            self.io = Some(io?);
        }
        let failed = || io::Error::new(io::ErrorKind::NotConnected, "the handshake failed");
        Poll::Ready(self.io.as_mut().map(Pin::new).ok_or_else(failed))
    }
}

impl<Io: AsyncRead + Unpin> AsyncRead for HandshakeIo<Io> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_io(cx))?.poll_read(cx, buf)
    }
}

impl<Io: AsyncWrite + Unpin> AsyncWrite for HandshakeIo<Io> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_io(cx))?.poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_io(cx))?.poll_flush(cx)
    }

    /// Before the handshake has ended, there is nothing to shut down: the drop closes the connection.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.io.as_mut().map_or(Poll::Ready(Ok(())), |io| Pin::new(io).poll_shutdown(cx))
    }
}

impl<Io: fmt::Debug> fmt::Debug for HandshakeIo<Io> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HandshakeIo").field("io", &self.io).finish_non_exhaustive()
    }
}
