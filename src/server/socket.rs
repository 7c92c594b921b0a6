//! A socket that reports its reads and writes to its connection, and fails once the connection has to end.

use std::any::Any;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::FutureExt;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf, Ready};
use tokio::net::TcpStream;
#[cfg(unix)]
use tokio::net::UnixStream;

use super::activity::Protocol;
use super::connections::{Connection, Order, Registration, Side};

/// The first bytes of every HTTP/2 connection (RFC 9113, section 3.4).
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How many bytes the kernel may hold that it has not sent.
///
/// By default the kernel takes up to 4 MB, and then nothing until a third of it was read. A client that reads 10 KB/s
/// would seem to have stopped for minutes. By the commit that brought this option to Linux (c9bee3b7fdec), 128 KiB cost
/// no throughput at 10 Gbit/s.
#[cfg(any(target_os = "linux", target_os = "android"))]
const UNSENT: u32 = 128 << 10;

/// The stream of a connection, which reports to it.
#[derive(Debug)]
pub(super) struct Socket<Io: 'static> {
    io: Io,
    /// The TCP or Unix socket under the stream, if the stream is not one.
    socket: fn(&Io) -> &dyn Any,
    /// The rest of the preface, until the client has sent all of it or something else.
    preface: Option<&'static [u8]>,
    ended: bool,
    /// The kernel holds no more than [`UNSENT`] bytes that it has not sent.
    paced: bool,
    // Dropped after the stream, so a connection that is no longer counted is closed.
    registration: Registration,
}

impl<Io: 'static> Socket<Io> {
    pub(super) fn new(io: Io, socket: fn(&Io) -> &dyn Any, registration: Registration) -> Self {
        Self { io, socket, preface: Some(HTTP2_PREFACE), ended: false, paced: false, registration }
    }

    fn connection(&self) -> &Connection {
        &self.registration.connection
    }

    fn notice(&mut self, bytes: &[u8]) {
        if let Some(rest) = self.preface {
            let common = rest.len().min(bytes.len());
            if rest[..common] != bytes[..common] {
                self.preface = None;
                self.connection().activity.set_protocol(Protocol::Http1);
            } else if common == rest.len() {
                self.preface = None;
                self.connection().activity.set_protocol(Protocol::Http2);
            } else {
                self.preface = Some(&rest[common..]);
            }
        }
        self.connection().activity.read();
    }

    /// Has the kernel take bytes as the peer reads them. Only Linux has this option here.
    fn pace(&mut self) {
        if self.paced {
            return;
        }
        self.paced = true;
        #[cfg(any(target_os = "linux", target_os = "android"))]
        if let Some(socket) = (self.socket)(&self.io).downcast_ref::<TcpStream>()
            && let Err(error) = SockRef::from(socket).set_tcp_notsent_lowat(UNSENT)
        {
            tracing::debug!(target: "tower_offload", %error, "cannot set TCP_NOTSENT_LOWAT");
        }
    }

    /// An upgraded socket is polled by the application alone, so the order to end has to reach it here.
    fn check_order(&self, side: Side, cx: &Context<'_>) -> io::Result<()> {
        if self.connection().is_upgraded() {
            self.connection().watch(side, cx.waker());
            if self.connection().order() == Order::End {
                return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the server has shut down"));
            }
        }
        Ok(())
    }
}

/// Whether the peer has closed its sending side or reset the connection, even if bytes that it sent before are unread.
///
/// The runtime has been told so by the kernel, and this asks the runtime: no system call.
fn peer_has_closed(socket: &dyn Any) -> bool {
    let ready = socket.downcast_ref().map(|socket: &TcpStream| socket.ready(Interest::READABLE).now_or_never());
    #[cfg(unix)]
    let ready = ready
        .or_else(|| socket.downcast_ref().map(|socket: &UnixStream| socket.ready(Interest::READABLE).now_or_never()));
    ready.flatten().is_some_and(|ready| ready.is_ok_and(Ready::is_read_closed))
}

/// Asks the kernel for unread bytes, which the runtime may not have noticed yet. It does so for a plain TCP or Unix
/// stream only: behind TLS, a byte on the socket need not be a byte of a request.
fn has_unread(io: &dyn Any) -> bool {
    let mut byte = [MaybeUninit::uninit()];
    let tcp = io.downcast_ref().map(|io: &TcpStream| SockRef::from(io));
    #[cfg(unix)]
    let tcp = tcp.or_else(|| io.downcast_ref().map(|io: &UnixStream| SockRef::from(io)));
    tcp.is_some_and(|socket| matches!(socket.peek(&mut byte), Ok(1)))
}

/// Resets the connection of a client that has stopped to read: its response must not look complete, and the kernel must
/// not keep what it does not read. A body that ends with the connection must not look complete either, unless hyper has
/// ended the stream behind it.
impl<Io: 'static> Drop for Socket<Io> {
    fn drop(&mut self) {
        let cut_short = !self.ended && self.connection().delimits_body();
        let socket = (self.socket)(&self.io).downcast_ref::<TcpStream>();
        if let Some(socket) = socket.filter(|_| cut_short || self.connection().is_stalled()) {
            // The close then resets. If this fails, the connection has ended.
            let _ = SockRef::from(socket).set_linger(Some(Duration::ZERO));
        }
    }
}

impl<Io: AsyncRead + Unpin + 'static> AsyncRead for Socket<Io> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.check_order(Side::Read, cx)?;
        let before = buf.filled().len();
        match Pin::new(&mut self.io).poll_read(cx, buf) {
            Poll::Ready(Ok(())) => {
                self.notice(&buf.filled()[before..]);
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => {
                self.connection().activity.read_waits();
                if self.connection().activity.take_probe() && has_unread(&self.io) {
                    self.connection().activity.read();
                }
                Poll::Pending
            }
        }
    }
}

impl<Io: AsyncRead + AsyncWrite + Unpin + 'static> AsyncWrite for Socket<Io> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.check_order(Side::Write, cx)?;
        self.pace();
        let poll = Pin::new(&mut self.io).poll_write(cx, buf);
        self.connection().activity.write_blocked(poll.is_pending());
        poll
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check_order(Side::Write, cx)?;
        self.pace();
        let poll = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.connection().activity.write_blocked(poll.is_pending());
        poll
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // hyper calls this whenever it is polled and has no bytes to write.
        if self.connection().activity.take_look() && peer_has_closed((self.socket)(&self.io)) {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the client has hung up")));
        }
        let poll = Pin::new(&mut self.io).poll_flush(cx);
        self.connection().activity.flush_blocked(poll.is_pending());
        poll
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.ended {
            ready!(Pin::new(&mut self.io).poll_shutdown(cx))?;
            self.ended = true;
            // Once: hyper calls this again whenever the task is woken.
            self.connection().activity.ended();
        }
        if self.connection().is_upgraded() {
            return Poll::Ready(Ok(()));
        }
        let mut scratch = [MaybeUninit::uninit(); 1024];
        loop {
            let mut buf = ReadBuf::uninit(&mut scratch);
            match Pin::new(&mut self.io).poll_read(cx, &mut buf) {
                Poll::Ready(Ok(())) if !buf.filled().is_empty() => self.connection().activity.discarded(),
                Poll::Pending if self.connection().activity.lingers() => return Poll::Pending,
                _ => return Poll::Ready(Ok(())),
            }
        }
    }
}
