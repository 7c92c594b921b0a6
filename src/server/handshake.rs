//! Handshakes, such as those of TLS, that delay no other connection.

use std::any::Any;
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
/// use tokio::net::{TcpListener, TcpStream};
/// use tokio_rustls::{TlsAcceptor, rustls::ServerConfig, server::TlsStream};
/// use tower_offload::server::{Handshake, Server};
/// # use tower_offload::{Config, Pools};
///
/// # async fn serve(config: Config, pools: Pools, mut tls: ServerConfig) -> Result<(), Box<dyn std::error::Error>> {
/// # let app = axum::Router::new();
/// // The server recognises HTTP/2 by its first bytes; clients ask for it by ALPN.
/// tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
/// let tls = TlsAcceptor::from(Arc::new(tls));
/// let listener = TcpListener::bind(config.server.address()).await?;
/// let listener = Handshake::new(listener, move |tcp| tls.accept(tcp))
///     .socket(|tls: &TlsStream<TcpStream>| tls.get_ref().0);
/// Server::new(&config, &pools).listener(listener).serve(app).await?;
/// # Ok(())
/// # }
/// ```
pub struct Handshake<L, F, Io> {
    listener: L,
    handshake: F,
    socket: Option<fn(&Io) -> &dyn Any>,
}

/// A connection of a [`Handshake`]. The first read or write performs the handshake.
pub struct HandshakeIo<Io> {
    /// Until it ends.
    handshake: Option<Pin<Box<dyn Future<Output = io::Result<Io>> + Send>>>,
    /// Since it succeeded.
    io: Option<Io>,
    socket: Option<fn(&Io) -> &dyn Any>,
}

impl<L, F, Io> Handshake<L, F, Io> {
    /// Calls `handshake` with each connection of `listener`. An error of the future that it returns closes the
    /// connection.
    pub fn new(listener: L, handshake: F) -> Self {
        Self { listener, handshake, socket: None }
    }

    /// Sets the function that returns the TCP or Unix socket under a connection: the [`Listener::socket`] of this
    /// listener.
    #[must_use]
    pub fn socket(self, socket: fn(&Io) -> &dyn Any) -> Self {
        Self { socket: Some(socket), ..self }
    }
}

impl<L, F, Shaking, Io> Listener for Handshake<L, F, Io>
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
        let handshake = Box::pin((self.handshake)(io));
        (HandshakeIo { handshake: Some(handshake), io: None, socket: self.socket }, peer)
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }

    fn socket(io: &Self::Io) -> &dyn Any {
        match (&io.io, &io.socket) {
            (Some(inner), Some(socket)) => socket(inner),
            _ => io,
        }
    }
}

impl<L: fmt::Debug, F, Io> fmt::Debug for Handshake<L, F, Io> {
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

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_io(cx))?.poll_write_vectored(cx, bufs)
    }

    /// hyper asks before the handshake has ended. A connection without this takes the first slice alone.
    fn is_write_vectored(&self) -> bool {
        self.io.as_ref().is_none_or(AsyncWrite::is_write_vectored)
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
